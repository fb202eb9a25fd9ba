"""The order in which a training run asks: prepare, rounds, final evaluation, all of one experiment.

The guard keeps where a job stands in the node's ledger. A request that no training run makes is refused: another
table's definition in the same job, a step with other numbers, a round again, models that the site did not help to make.
A request that comes a second time, word for word, is answered again: a node asks anew after a restart.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from v6_algorithm.data.quantiles import CALLS
from v6_algorithm.errors import PolicyError
from v6_algorithm.exchange import wire
from v6_algorithm.experiment import Experiment, Tested

# What says which rows are summed over how; two experiments of a job differ in the rest only.
PINNED = ("data", "problem", "split", "evaluation", "seed")
# What each step's body may be: in a search for settings a site that is lost changes what the others agree on.
_BODIES = 3
# Nobody could have seen them before training ended: the newest two (`pipeline`) beside an average, or what was sent
# rounded (`strategy.compress_down`) and is measured whole.
_UNSEEN_MODELS = 3
# That a test compares.
_TESTED_MODELS = 2
# Of a Cox model twice, of the sites' own models, of groups, and as many where a site was lost in between.
_EVALUATIONS = 8
# Models of a fold that an experiment's final evaluations measure: the kept one, two that nobody has scored, one more.
_MEASURED_MODELS = 4
# What of `setup` comes after training, and what hangs on more than the rows: one of an experiment, several of a search.
_AFTER_TRAINING = ("baseline", "baselines")
_OF_EXPERIMENT = (*_AFTER_TRAINING, "terms", "event_times", "class_weights", "sums", "middle")


def digest(content: Any) -> str:
    """Return a hash of JSON, or of a text."""
    text = content if isinstance(content, str) else json.dumps(content, sort_keys=True, default=_written)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _model(item: Mapping[str, Any]) -> str:
    """Return a hash of the model that an item of a request carries, the same of its text and of what is held."""
    given = item.get("parameters")
    return (given.digest if isinstance(given, wire.Held) else digest(str(given)))[:16]


def _written(value: Any) -> str:
    return value.text() if isinstance(value, wire.Held) else str(value)


def _without(setup: Mapping[str, Any], keys: Sequence[str]) -> str:
    """Return a hash of what the sites agreed on, but for some of it."""
    return digest({key: value for key, value in setup.items() if key not in keys})[:32]


def _pin(pinned: dict[str, Any], key: str, made: str) -> None:
    """Keep the hash of a preparation under a key; raises PolicyError where another one is there."""
    if pinned.setdefault(key, made) != made:
        raise PolicyError(
            "this experiment has asked with another preparation before: columns, scales, filled values and times stay "
            "the same from the first round to the final evaluation; what two answers differ in would tell of few rows"
        )


class Order:
    """Where one job stands.

    Parameters
    ----------
    job
        The job's part of the ledger, which is changed.
    experiment
        Of the request.
    most_experiments
        How many a job may have.
    researcher_weights
        Whether the first round may begin with weights from the researcher.
    """

    def __init__(
        self, job: dict[str, Any], experiment: Experiment, *, most_experiments: int, researcher_weights: bool
    ) -> None:
        self._job, self._experiment = job, experiment
        self._most_experiments, self._researcher_weights = most_experiments, researcher_weights
        self._key = digest(experiment.for_sites())

    def admit(self, method: str, request: Mapping[str, Any]) -> None:
        """Check one request against those before, and note it; raises PolicyError saying what is out of order."""
        fingerprint = digest({"method": method, **{key: value for key, value in request.items() if key != "attempt"}})
        answered = self._job.setdefault("answered", {})
        if fingerprint in answered:
            return
        self._check_pinned()
        if method in ("train", "evaluate"):
            self._check_setup(request)
        {"summary": self._step, "prepare": self._step, "train": self._train, "evaluate": self._evaluate}[method](
            method, request
        )
        answered[fingerprint] = 1

    def _check_pinned(self) -> None:
        sections = {name: digest(section) for name, section in self._experiment.for_sites().items() if name in PINNED}
        pinned = self._job.setdefault("pinned", sections)
        other = [name for name in PINNED if pinned[name] != sections[name]]
        if other:
            raise PolicyError(
                f"this task has asked with another experiment before: {', '.join(other)} must stay the same; what two "
                "definitions of rows differ in would tell of few"
            )

    def _check_setup(self, request: Mapping[str, Any]) -> None:
        """Refuse columns, scales and times other than those before: answers would differ in the rows between."""
        setup = request.get("setup")
        if not isinstance(setup, Mapping):
            return
        if self._experiment.problem.kind == "survival":
            times = digest([setup.get("middle", 0.0), setup.get("sums")])
            if self._job.setdefault("times", times) != times:
                raise PolicyError(
                    "this task has asked with other times before; what answers that are cut at different times differ "
                    "in would tell of few rows"
                )
        if self._experiment.split.kind == "tested":
            # Each model was trained with a preparation of its own.
            tested = self._job.setdefault("tested", {})
            for item in request["folds"]:
                _pin(tested, _model(item), _without(setup, _AFTER_TRAINING))
                if against := item.get("against"):
                    # The second model's inputs are its own, in its experiment and in its setup.
                    of_second = digest([against["experiment"], against["setup"]])[:32]
                    _pin(tested, f"against {digest(against['parameters'])[:16]}", of_second)
            return
        _pin(self._run, "setup", _without(setup, _AFTER_TRAINING))
        prepared = self._job.setdefault("setups", [])
        if (of_rows := _without(setup, _OF_EXPERIMENT)) not in prepared:
            if len(prepared) >= _BODIES:
                raise PolicyError(
                    f"this task has asked with {_BODIES} preparations before (columns, scales, filled values); a "
                    "search for settings has one, and another where it loses a site"
                )
            prepared.append(of_rows)

    @property
    def _run(self) -> dict[str, Any]:
        """What is known of this very experiment."""
        runs = self._job.setdefault("runs", {})
        if self._key not in runs:
            if len(runs) >= self._most_experiments:
                raise PolicyError(
                    f"this node answers at most {self._most_experiments} experiments in one task "
                    "(V6_ALGORITHM_MAXIMUM_EXPERIMENTS_PER_JOB)"
                )
            runs[self._key] = {
                "round": 0, "trained": {}, "scored": {}, "models": {}, "unseen": {}, "measured": {}, "evaluations": 0
            }  # fmt: skip
        run: dict[str, Any] = runs[self._key]
        return run

    def _step(self, method: str, request: Mapping[str, Any]) -> None:
        step = str(request.get("step"))
        steps = self._job.setdefault("steps", {})
        before = {
            "statistics": "schema",
            "moments": "statistics",
            "quantiles": "statistics",
            "harmonisation": "statistics",
            "imputation": "statistics",
        }
        if method == "prepare" and step in before and f"prepare {before[step]}" not in steps:
            raise PolicyError(f"step {step} comes after step {before[step]}, which this task has not asked for")
        if method == "summary" and step != "columns" and "summary columns" not in steps:
            raise PolicyError(f"step {step} comes after step columns, which this task has not asked for")
        body = {
            key: value for key, value in request.items() if key in ("setup", "windows", "features", "asked", "products")
        }
        bodies = steps.setdefault(f"{method} {step}", [])
        fingerprint = digest(body)
        if fingerprint not in bodies:
            # Once before and once after harmonisation.
            twice = step in ("quantiles", "moments") and self._experiment.data.harmonisation.kind != "none"
            # Cells of quantiles are of one tree, wherever they are cut.
            calls = CALLS if step in ("quantiles", "shape") else 1
            # A regression's knots are quantiles of their own.
            twice |= step == "quantiles" and bool(getattr(self._experiment.model, "splines", None))
            if step == "imputation":
                calls = self._experiment.data.missing.iterations
            if len(bodies) >= _BODIES * calls * (2 if twice else 1):
                raise PolicyError(
                    f"step {step} was answered for this task; with other numbers it is not answered again"
                )
            bodies.append(fingerprint)

    def _prepared(self) -> None:
        if self._experiment.split.kind == "tested":
            if "prepare schema" not in self._job.get("steps", {}):
                raise PolicyError("a test comes after the question for columns, which this task has not asked")
            return
        if "prepare statistics" not in self._job.get("steps", {}):
            raise PolicyError("training and evaluation come after the preparation, which this task has not asked for")

    def _train(self, method: str, request: Mapping[str, Any]) -> None:
        self._prepared()
        if self._experiment.split.kind == "tested":
            raise PolicyError("split tested measures a finished model; a task that tests one trains none")
        run, number = self._run, int(request["round"])
        first = 0 if self._experiment.start.pretrain_epochs else 1
        if not max(first, run["round"]) <= number <= self._experiment.rounds:
            raise PolicyError(
                f"round {number} is out of order: this experiment has rounds {first} to {self._experiment.rounds}, and "
                f"round {run['round']} was the last that was asked for"
            )
        run["round"] = number
        folds = [int(item["fold"]) for item in request["folds"]]
        if len(set(folds)) < len(folds):
            raise PolicyError("a fold is named twice in one round")
        for item in request["folds"]:
            fold = str(int(item["fold"]))
            self._check_start(number, item)
            if set(item.get("evaluate", [])) - {"validation"} or any(
                item.get(key) for key in ("baseline", "subgroups", "personal")
            ):
                raise PolicyError("a round measures validation rows only; the rest comes at the end")
            if item.get("evaluate"):
                self._once(run["scored"], fold, number, item, "measured")
            if item.get("train", True):
                self._once(run["trained"], fold, number, item, "trained")
            if isinstance(item.get("parameters"), (str, wire.Held)):
                seen = run["models"].setdefault(fold, [])
                seen.append(_model(item))

    def _once(self, done: dict[str, Any], fold: str, number: int, item: Mapping[str, Any], what: str) -> None:
        """Let a fold be asked about once a round; again of the same model, as by a `master` that was run again."""
        model = _model(item)
        last, of = done.get(fold, (-1, ""))
        if last > number or (last == number and of != model):
            raise PolicyError(f"fold {fold} was {what} in round {number}; a training run does so once, with one model")
        done[fold] = [number, model]

    def _check_start(self, number: int, item: Mapping[str, Any]) -> None:
        start = self._experiment.start
        if item.get("parameters") is None or self._researcher_weights or start.pretrain_epochs:
            return
        # In turns, a site goes on from what the one before it made.
        if number <= 1 and self._experiment.strategy.kind != "cyclic":
            raise PolicyError(
                "the first round begins with weights from elsewhere (start.weights); this node takes those of the "
                "seed, or of a file in its image or folder: image:NAME, site:NAME (V6_ALGORITHM_RESEARCHER_WEIGHTS)"
            )

    def _evaluate(self, method: str, request: Mapping[str, Any]) -> None:
        self._prepared()
        run, number = self._run, int(request["round"])
        # A run that stops early learns so from the call of the round after: its last model is that of the one before.
        # With `pipeline` a further round was asked for by then.
        if not max(1, run["round"] - 2) <= number <= self._experiment.rounds:
            raise PolicyError(
                f"an evaluation after round {number} is out of order: round {run['round']} was the last asked for"
            )
        run["evaluations"] += 1
        if run["evaluations"] > _EVALUATIONS:
            raise PolicyError(f"this experiment was evaluated {_EVALUATIONS} times; a training run needs no more")
        if isinstance(split := self._experiment.split, Tested):
            self._check_tested(split, request)
        asked = set()
        for item in request["folds"]:
            fold, model = str(int(item["fold"])), _model(item)
            # As it is, and trained on with the site's own rows.
            way = fold, model, bool(item.get("personal"))
            if way in asked:
                raise PolicyError("an evaluation names a fold and its model twice")
            asked.add(way)
            if item.get("train"):
                raise PolicyError("an evaluation trains nothing")
            if (item.get("against") or {}).get("placements") is not None:
                # Sums at other placements would tell how two models' scores lie together, cell by cell.
                if run.get("paired"):
                    raise PolicyError("sums of two models' placements were told in this task; at others they are not")
                run["paired"] = 1
            # Ledgers of earlier versions lack it.
            measured = run.setdefault("measured", {}).setdefault(fold, [])
            if model not in measured:
                if len(measured) >= _MEASURED_MODELS:
                    raise PolicyError(
                        f"fold {fold}: {_MEASURED_MODELS} models were measured at the end; a training run has no more "
                        "that it may keep"
                    )
                measured.append(model)
            unseen = run["unseen"].setdefault(fold, [])
            if model in run["models"].get(fold, []) or model in unseen:
                continue
            if len(unseen) >= _UNSEEN_MODELS:
                raise PolicyError(f"fold {fold}: only models seen in training, the newest and an average are measured")
            unseen.append(model)

    @staticmethod
    def _check_tested(split: Tested, request: Mapping[str, Any]) -> None:
        """Refuse any model but those that the experiment names; these are the unseen ones that a job may have."""
        if len(split.models) > _TESTED_MODELS:
            raise PolicyError(
                f"{len(split.models)} models are to be tested on the same rows; this node measures {_TESTED_MODELS} "
                "that it did not see in training (V6_ALGORITHM_REQUEST_ORDER)"
            )
        for item in request["folds"]:
            if wire.digest(str(item.get("parameters"))) not in split.models:
                raise PolicyError("a test measures the models that its experiment names (split.models), and no other")
            if set(item.get("evaluate", [])) - {"test"} or any(item.get(key) for key in ("baseline", "personal")):
                raise PolicyError("a test measures the rows of the test part, and trains nothing")
