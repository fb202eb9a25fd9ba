"""`approve` prints the hash of an experiment, by which a node's owner lets it in and nothing else."""

from __future__ import annotations

from typing import Annotated

import typer

from v6_algorithm.researcher.cli.run import File, Set, TestRun, as_test, load_experiment
from v6_algorithm.researcher.cli.terminal import Json, explained, say, tell


def approve(
    file: File,
    set_: Set = None,
    test: TestRun = None,
    show: Annotated[bool, typer.Option("--show", help="Print what is approved, as JSON, before its hash.")] = False,
    json_: Json = False,
) -> None:
    """Print the hash that approves an experiment, for a node's V6_ALGORITHM_APPROVED_EXPERIMENTS.

    It covers all that a site is told: data, model, split, training, strategy, privacy, seed. It leaves out the run's
    name, what is written of it, and how long anybody waits. With --test it is that of testing this very model.
    """
    with explained(json_):
        from v6_algorithm.experiment.approval import approved_content, fingerprint

        experiment = load_experiment(file, set_)
        if test is not None:
            experiment, _ = as_test(experiment, test)
        if show:
            import json

            say(json.dumps(approved_content(experiment), indent=2, sort_keys=True))
        say(fingerprint(experiment))
        tell({"hash": fingerprint(experiment), "approves": approved_content(experiment)})
