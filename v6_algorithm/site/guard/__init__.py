"""The one place through which every number leaves a site: it knows the owner's rules and what was answered before.

`handle` lets it admit a request before anything is read, and screen the answer before it goes; `Work` gives it the
table as soon as there is one. `order`, `bounds`, `rowsets` and `coarse` hold the rules' arithmetic, `ledger` what a
node remembers. Under ``trusted`` it lets pass what always passed, bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from v6_algorithm import seeding
from v6_algorithm.errors import PolicyError
from v6_algorithm.experiment import Experiment
from v6_algorithm.experiment.approval import fingerprint
from v6_algorithm.site.context import SiteContext
from v6_algorithm.site.guard.bounds import (
    check_experiment,
    check_features,
    check_folds,
    check_inputs,
    check_networks,
    check_passes,
    check_training,
)
from v6_algorithm.site.guard.leaving import check_keys
from v6_algorithm.site.guard.ledger import Ledger
from v6_algorithm.site.guard.order import PINNED, Order, digest
from v6_algorithm.site.guard.privacy_account import Booked, PrivacyAccount, honest_sites
from v6_algorithm.site.rules import BY_FIELD

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from torch import nn

    from v6_algorithm.data.preparation import Moments, Setup
    from v6_algorithm.data.table import TableData
    from v6_algorithm.site.guard.watch import UpdateWatch


# Updates of a task that may be kept for giving rows away: a refusal says that a row is near.
_MOST_ISOLATED = 5


class Guard:
    """The owner's rules applied to one request.

    Parameters
    ----------
    context
        The site: its policy, and where it remembers.
    request, experiment
        What is asked.

    Raises
    ------
    PolicyError
        When a rule needs a memory and the site has none that lasts from request to request, or over tasks.
    """

    def __init__(self, context: SiteContext, request: Mapping[str, Any], experiment: Experiment) -> None:
        self.policy = context.policy
        self._request, self._experiment = request, experiment
        self._sources = context.sources
        policy = self.policy
        policy.check_ledger()
        needed = policy.request_order or policy.refuse_differences or policy.maximum_share_of_sums is not None
        needed |= policy.secret_folds and policy.folds_secret is None
        needed |= policy.maximum_epsilon is not None or experiment.privacy.differential_privacy is not None
        if needed and context.state is None and not context.lasting:
            raise PolicyError(
                "this node has no place that lasts from request to request, which its rules or differential privacy "
                "need: a TEMPORARY_FOLDER, as vantage6's nodes have"
            )
        self._job = Ledger(context.state, context.memory)
        folder = policy.ledger_folder
        self._lasting = self._job if folder is None else Ledger(Path(folder), {})
        # Sums, secrets and epsilon begin anew with each job where the owner names no folder: a budget that is used up
        # for good is for an owner to want. Which rows were told of is remembered wherever the node has a place.
        self._told = self._lasting
        if folder is None and context.node_folder is not None and policy.refuse_differences:
            self._told = Ledger(context.node_folder, {})
        self._over_tasks = folder is not None or self._told is not self._job
        self._accounted = False

    @property
    def _databases(self) -> str:
        return digest(sorted(source.uri for source in self._sources.values()))[:16]

    # -- before anything is read ---------------------------------------------------------------------------------------

    def admit(self, method: str) -> None:
        """Refuse a request that is too large, not approved, out of order, or asks for what the rounds do not tell."""
        policy, experiment = self.policy, self._experiment
        self.admit_compared()
        trains = method == "train"
        if trains and not policy.round_metrics and any(item.get("evaluate") for item in self._request["folds"]):
            raise PolicyError(
                "this node measures no model in the rounds, but those that the final evaluation may keep "
                f"({BY_FIELD['round_metrics'].variable})"
            )
        watched = trains and policy.refuse_isolated_rows
        if not watched and not policy.request_order:
            return
        with self._job.open() as content:
            if watched and (kept := content.get("isolated", 0)) >= _MOST_ISOLATED:
                raise PolicyError(
                    f"this node has kept {kept} updates of this task that would have given single rows away, and "
                    f"trains no more for it ({BY_FIELD['refuse_isolated_rows'].variable})"
                )
            if policy.request_order:
                Order(
                    content.setdefault("job", {}),
                    experiment,
                    most_experiments=policy.maximum_experiments,
                    researcher_weights=policy.researcher_weights,
                ).admit(method, self._request)

    def count_isolated(self) -> None:
        """Remember that an update was kept back: of many, which ones are would tell where the rows are."""
        with self._job.open() as content:
            content["isolated"] = content.get("isolated", 0) + 1

    def admit_compared(self) -> None:
        """Refuse an experiment that is too large or not approved; of a second model's, whose place is the first's."""
        policy, experiment = self.policy, self._experiment
        check_experiment(policy, experiment)
        check_folds(policy, experiment, self._request)
        approved = policy.approved_experiments
        if approved is not None and fingerprint(experiment) not in approved:
            raise PolicyError(
                f"only approved experiments are answered here, and this one ({fingerprint(experiment)[:12]}…) is "
                f"not among them ({len(approved)} approved); `v6-algorithm approve FILE` prints what its owner "
                f"enters in {BY_FIELD['approved_experiments'].variable}"
            )

    @property
    def seed(self) -> int:
        """The seed of splits, drawn rows and batches: the experiment's, or mixed with the node's secret."""
        policy, seed = self.policy, self._experiment.seed
        if not policy.secret_folds:
            return seed
        return seeding.derive(seed, "secret of the node", policy.folds_secret or self._lasting.secret())

    @property
    def drawn(self) -> Experiment:
        """The experiment by which a table is split, with that seed in place of its own."""
        seed = self.seed
        return self._experiment if seed == self._experiment.seed else self._experiment.model_copy(update={"seed": seed})

    # -- when there is something to answer about -----------------------------------------------------------------------

    def account(self, table: TableData, setup: Setup) -> None:
        """Book what this request's answers will be sums over; refuse what all answers together would tell."""
        from v6_algorithm.site.guard.rowsets import sets_of

        policy = self.policy
        if self._accounted or (policy.maximum_share_of_sums is None and not policy.refuse_differences):
            return
        self._accounted = True
        sections = self._experiment.for_sites()
        key = digest([sections[name] for name in PINNED])[:16]
        job = self._of_job
        columns = sorted(
            {*setup.features, *setup.categories, *setup.pixels, *self._experiment.data.target_columns.values()}
        )
        with self._lasting.open() as content, self._remembered(content) as told:
            database = content.setdefault("databases", {}).setdefault(self._databases, {})
            # Later rounds of an experiment ask of the same rows; another task may find others.
            booked = f"{key} {digest(columns)[:16]} {len(table.target)} {job}"
            if booked in database.setdefault("booked", []):
                return
            database["booked"].append(booked)
            if policy.maximum_share_of_sums is not None:
                self._check_sums(database.setdefault("sums", {}), key, columns, table)
            if policy.refuse_differences:
                self._check_sets(told, f"{key} {job}", sets_of(table, setup, self._experiment))

    @property
    def _of_job(self) -> str:
        """A name of this job, which nobody else can make."""
        return digest(self._job.secret())[:16]

    @contextmanager
    def _remembered(self, content: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Give the sets of rows told of so far, out of the open ledger or of that which they have by themselves."""
        with nullcontext(content) if self._told is self._lasting else self._told.open() as place:
            yield place.setdefault("databases", {}).setdefault(self._databases, {}).setdefault("sets", {})

    def _check_sums(self, booked: dict[str, Any], key: str, columns: Sequence[str], table: TableData) -> None:
        from v6_algorithm.site.guard.rowsets import independent_sums

        booked[key] = {"columns": list(columns), "sums": independent_sums(self._experiment, table)}
        names = set(columns)
        # Of other columns' sums none is a sum of these.
        total = sum(entry["sums"] for entry in booked.values() if names & set(entry["columns"]))
        share = self.policy.maximum_share_of_sums or 0
        if total > share * len(table.target):
            raise PolicyError(
                f"folds, repeats, parts and groups ask for {total} independent sums over rows, with those asked for "
                f"before; this node tells at most {share:.3g} of its number of rows "
                f"({BY_FIELD['maximum_share_of_sums'].variable})"
            )

    def _check_sets(self, kept: dict[str, Any], key: str, sets: Mapping[str, np.ndarray]) -> None:
        from v6_algorithm.site.guard.rowsets import check_differences

        check_differences(kept, key, sets, self.policy.minimum_cell, BY_FIELD["refuse_differences"].variable)

    def account_frame(self, frame: pd.DataFrame, features: Sequence[str], groups: np.ndarray | None = None) -> None:
        """Book a description of the table: which rows have a value in each column, and which are in each group."""
        import numpy as np

        if not self.policy.refuse_differences:
            return
        columns = [name for name in features if name in frame.columns]
        sets = {f"column '{name}' as described": np.flatnonzero(frame[name].notna().to_numpy()) for name in columns}
        for group in [] if groups is None else np.unique(groups.astype(str)).tolist():
            sets[f"group {digest(group)[:8]} of '{self._experiment.evaluation.by}'"] = np.flatnonzero(groups == group)
        key = f"{digest(self._experiment.for_sites())[:16]} {self._of_job}"
        with self._told.open() as content:
            database = content.setdefault("databases", {}).setdefault(self._databases, {})
            self._check_sets(database.setdefault("sets", {}), key, sets)

    def check_labels(
        self, frame: pd.DataFrame, schema: dict[str, Any], labels: Mapping[str, Mapping[Any, int]]
    ) -> None:
        """Refuse a label of few rows, and leave categories of few rows out of a schema.

        Parameters
        ----------
        frame
            The rows.
        schema
            What is told of them; its `categories` are changed, and `few` says which columns lost some.
        labels
            Column to the rows of each label that occurs.
        """
        from collections import Counter

        from v6_algorithm.data.targets import canonical

        least, few = self.policy.minimum_label_rows, []
        for column, rows in labels.items():
            if any(count < least for count in rows.values()):
                raise PolicyError(
                    f"column '{column}' has labels of fewer rows than this node's least of {least} "
                    f"({BY_FIELD['minimum_label_rows'].variable}); data.positive can join them"
                )
        for column, names in schema["categories"].items():
            if least > 1 and column in frame.columns:
                counts = Counter(canonical(frame[column].dropna()))
                schema["categories"][column] = [name for name in names if counts[name] >= least]
                few += [column] if len(schema["categories"][column]) < len(names) else []
        schema["few"] = few

    def check_inputs(self, setup: Setup, rows: int) -> None:
        """Refuse a table of so many rows that is too large once it is encoded as the setup says."""
        check_inputs(self.policy, setup, rows)

    def check_features(self, features: Sequence[str], rows: int) -> None:
        """Refuse a description of so many columns that the numbers of these rows are too many."""
        check_features(self.policy, features, rows)

    def check_networks(self, networks: Mapping[str, nn.Module], columns: int = 0) -> None:
        """Refuse a model of too many numbers, which may be without memory, or sums of products of too many columns."""
        check_networks(self.policy, networks, columns)

    def check_passes(self, rows: Sequence[int], *, train: bool) -> None:
        """Refuse a request whose trainings of folds, of so many training rows each, are too long together."""
        items = [
            item | {"train": train and item.get("train", True)}
            for item in self._request["folds"]
            if 0 <= int(item["fold"]) < len(rows)
        ]
        folds = [(rows[int(item["fold"])], item) for item in items]
        check_passes(self.policy, self._experiment, int(self._request["round"]), folds)

    def check_model(self, problem: Any) -> None:
        """Refuse a model of too many numbers before it is built."""
        import torch

        with torch.device("meta"):
            self.check_networks(problem.build_networks(), problem.sums_of_squares)

    def check_training(self, rows: int, item: Mapping[str, Any], round: int | None = None) -> None:
        """Refuse a fold's training whose update would tell of few rows, takes too long, or lacks required noise."""
        self._check_required_privacy()
        check_training(
            self.policy, self._experiment, int(self._request["round"]) if round is None else round, rows, item
        )

    def _check_required_privacy(self) -> None:
        """Refuse an experiment without differential privacy where the owner requires it."""
        most = self.policy.maximum_epsilon
        if most is not None and self._experiment.privacy.differential_privacy is None:
            raise PolicyError(
                f"this node requires differential privacy ({BY_FIELD['maximum_epsilon'].variable}); add privacy: "
                f"{{differential_privacy: {{unit: sample, epsilon: {most:g}, delta: {self.policy.maximum_delta:g}}}}}, "
                "or less"
            )

    def open_privacy_account(self, table: TableData) -> float | None:
        """Plan the noise of a run, before anything is trained; refuse one without, where the owner requires it.

        Returns
        -------
        float, optional
            The noise multiplier; None: no differential privacy.
        """
        self._check_required_privacy()
        if self._experiment.privacy.differential_privacy is None:
            return None
        return self._privacy_account.open(table)

    def book_privacy(self, table: TableData, folds: Sequence[int]) -> Booked | None:
        """Book what a round's training of these folds costs, before it begins; None: no differential privacy.

        Raises
        ------
        PolicyError
            When the run's epsilon or the node's is used up, or the owner requires what the experiment has not.
        """
        if self._experiment.privacy.differential_privacy is None:
            self._check_required_privacy()
            return None
        return self._privacy_account.book(table, folds, int(self._request["round"]))

    @property
    def _privacy_account(self) -> PrivacyAccount:
        return PrivacyAccount(
            self.policy,
            self._experiment,
            self._job,
            self._lasting,
            self._databases,
            honest_sites(self._experiment, self._request),
        )

    def bears(self, columns: int, rows: int) -> bool:
        """Say whether sums of products of so many columns over so many rows may be told; see `check_information`."""
        share = self.policy.maximum_share_of_sums
        return share is None or columns <= share * rows

    @property
    def matches(self) -> bool:
        """Whether an imputed cell may be another row's value.

        Which value that is jumps where a regression of the asker's says, so that sums would be over the rows on one
        side of it; what is drawn from the regression itself is linear in a row.
        """
        return not (self.policy.coarse_histograms or self.policy.maximum_share_of_sums is not None)

    def check_imputation(self) -> None:
        """Refuse imputed tables of a model whose sums are over the rows at risk between two joined times.

        There the sums of two tables differ in the few imputed rows between these times, and tell their other columns.
        """
        if getattr(self._experiment.model, "strata", "site") == "none" and not self.matches:
            raise PolicyError(
                "this node joins event times, and sums of two imputed tables over the rows at risk would differ in the "
                "few imputed rows between two times; data.missing impute with model cox takes model.strata site here"
            )

    def fewest_imputed(self, columns: int) -> int:
        """Return how many rows must have their empty cells in the same columns to be imputed; fewer are not trained on.

        Imputed tables differ in these rows alone, so that the difference of two tables' sums is a sum over them.
        """
        share = self.policy.maximum_share_of_sums
        least = max(self.policy.minimum_cell, self.policy.minimum_part_rows)
        return least if share is None else max(least, -int(-columns // share))

    def check_information(self, columns: int, rows: int) -> None:
        """Refuse sums of products of so many columns that they would nearly tell the rows; 0 columns: there are none.

        As many coefficients as rows fit the rows exactly. The share is the one that DataSHIELD's GLMs have by default.
        """
        share = self.policy.maximum_share_of_sums
        if share is not None and columns > share * rows:
            raise PolicyError(
                f"model {self._experiment.model.kind} asks for {columns} coefficients; this node allows at most "
                f"{share:.3g} of its number of training rows ({BY_FIELD['maximum_share_of_sums'].variable})"
            )

    def check_left_out(self, rows: int) -> None:
        """Refuse a penalty's cross-validation of which a part has few of the training rows."""
        penalty = getattr(self._experiment.model, "penalty", None)
        if penalty is not None and penalty.fits:
            self.policy.check_part("left-out (model.penalty.folds)", rows // penalty.folds)

    def watch(self, problem: Any, networks: Mapping[str, nn.Module], rows: Any, part: Any) -> UpdateWatch | None:
        """Begin to watch a fold's training for an update that gives single rows away, where the rule asks for it."""
        if not self.policy.refuse_isolated_rows:
            return None
        from v6_algorithm.site.guard.watch import UpdateWatch

        return UpdateWatch(problem, dict(networks), rows, part)

    def time_cell(self, columns: int) -> tuple[int, int] | None:
        """Return the fewest events and rows that one event time may stand for, or None where each may be told.

        Sums by event time are over the rows that leave between two of them: a cell has the rows of a count that may be
        told, and as many for each column as `check_information` asks of all rows.
        """
        policy = self.policy
        if not policy.coarse_histograms and policy.maximum_share_of_sums is None:
            return None
        share = policy.maximum_share_of_sums or 1.0
        return policy.minimum_cell, max(policy.minimum_cell, -int(-columns // share))

    # -- before it goes ------------------------------------------------------------------------------------------------

    def edges(self, moments: Moments, values: Any) -> Moments:
        """Return moments whose smallest and largest values are means over a cell's rows, by the owner's rule."""
        from dataclasses import replace

        from v6_algorithm.site.guard.coarse import coarse_edges

        if not self.policy.coarse_histograms or not (moments.low.any() or moments.high.any()):
            return moments
        low, high = coarse_edges(values, moments.low, moments.high, self.policy.minimum_cell)
        return replace(moments, low=low, high=high)

    def joined(self, counts: np.ndarray) -> np.ndarray:
        """Return histograms, (…, bins), with bins of few rows joined, where the rule asks for it."""
        import numpy as np

        from v6_algorithm.site.guard.coarse import join_bins

        if not self.policy.coarse_histograms:
            return counts
        flat = counts.reshape(-1, counts.shape[-1])
        joined = [join_bins(row[None], self.policy.minimum_cell)[0] for row in flat]
        return np.stack(joined).reshape(counts.shape) if len(flat) else counts

    def screen(self, method: str, body: dict[str, Any]) -> dict[str, Any]:
        """Return an answer as it may leave; every answer passes here last."""
        from v6_algorithm.learning.metrics.joined import capped

        check_keys(method, body)
        if "members" in body or "machine" in body or (method == "summary" and "columns" in body):
            body["policy"] = self.policy.in_force() | {"differences_over_tasks": self._over_tasks}
        if self.policy.coarse_histograms:
            self._make_coarse(body)
        if self._experiment.privacy.secure_aggregation is None:
            # Secure aggregation sends as many bins of any rows, and is exact only about those that it gets.
            for item in body.get("folds", []):
                item |= {key: capped(item[key]) for key in ("metrics", "compared") if key in item}
            if "subgroups" in body:
                body["subgroups"] = capped(body["subgroups"])
        return body

    def _make_coarse(self, body: dict[str, Any]) -> None:
        from v6_algorithm.site.guard.coarse import at_least, coarse_state

        smallest = self.policy.minimum_cell
        if body.get("class_counts") is not None:
            body["class_counts"] = at_least(body["class_counts"], smallest)
        for item in body.get("folds", []):
            item |= {key: coarse_state(item[key], smallest) for key in ("metrics", "compared") if key in item}
        if "subgroups" in body:
            body["subgroups"] = coarse_state(body["subgroups"], smallest)
