"""`approve` prints the hash of an experiment, by which a node's owner lets it in and nothing else."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from v6_algorithm.researcher.cli.run import Against, File, Set, TestRun, as_test, load_experiment, named_runs
from v6_algorithm.researcher.cli.terminal import Json, explained, say, tell


def approve(
    file: File,
    set_: Set = None,
    test: TestRun = None,
    against: Against = None,
    show: Annotated[bool, typer.Option("--show", help="Print what is approved, as JSON, before its hash.")] = False,
    json_: Json = False,
) -> None:
    """Print the hash that approves an experiment, for a node's V6_ALGORITHM_APPROVED_EXPERIMENTS.

    It covers all that a site is told: data, model, split, training, strategy, privacy, seed. It leaves out the run's
    name, what is written of it, and how long anybody waits. With --test it is that of testing this very model;
    with --against there are two hashes, one a model, and an owner approves both.
    """
    with explained(json_):
        from v6_algorithm.experiment.approval import approved_content, fingerprint

        experiment = load_experiment(file, set_)
        approved = [experiment]
        if test is not None or against is not None:
            from v6_algorithm.coordinator.evaluation.model_test import experiment_of_second, models_of

            experiment, weights = as_test(experiment, named_runs(test, against))
            seconds = models_of(weights)[1:]
            approved = [experiment, *(experiment_of_second(experiment, model) for model in seconds)]
        answers = []
        for each in approved:
            content, code = approved_content(each), fingerprint(each)
            if show:
                say(json.dumps(content, indent=2, sort_keys=True))
            say(code)
            answers.append({"hash": code, "approves": content})
        tell(answers[0] if len(answers) == 1 else {"models": answers})
