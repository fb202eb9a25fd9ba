"""The rules that a node's owner can set: name, range, what each preset says, and which attack it answers.

`policy` reads them from the node's environment, `doctor --policy` prints them, docs/node-policy.md lists them (a test
compares). A new rule is one entry here and one field of `Policy`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

from v6_algorithm.errors import PolicyError

PREFIX = "V6_ALGORITHM_"
PRESET = f"{PREFIX}POLICY"
PRESETS = ("trusted", "standard", "strict")
# Names that begin like a rule and are none: where weights are kept, and where benchmarks find their data.
NO_RULES = (f"{PREFIX}WEIGHTS", f"{PREFIX}DATA")
_ANY = 10**9
_SWITCH = {"true": True, "on": True, "yes": True, "1": True, "false": False, "off": False, "no": False, "0": False}


@dataclass(frozen=True)
class Rule:
    """One rule.

    Attributes
    ----------
    field
        Of `Policy`.
    variable
        In the node's `algorithm_env`.
    kind
        ``whole`` number, ``number``, ``switch`` (true or false), ``pattern`` (a regular expression), ``words`` (a list
        separated by spaces, commas or lines), ``lines``, ``path`` or ``secret`` (64 hexadecimal digits or more).
    values
        Of trusted, standard and strict; None: no limit.
    tighter
        Which way protects more: ``more``, ``less``, ``on`` or ``off``; None: the rule is no protection of patients and
        may be set either way.
    range
        Least and largest value of a number.
    means
        One line for the data officer.
    """

    field: str
    variable: str
    kind: Literal["whole", "number", "switch", "pattern", "words", "lines", "path", "secret"]
    values: tuple[Any, Any, Any]
    tighter: Literal["more", "less", "on", "off"] | None
    means: str
    range: tuple[float, float] = (1, _ANY)

    def read(self, text: str) -> Any:
        """Read the variable's text; raises PolicyError, which never quotes a secret."""
        text = str(text).strip()
        if not text:
            raise PolicyError(f"{self.variable} of this node is blank; give it a value, or leave the line out")
        if self.kind in ("whole", "number"):
            return self._number(text)
        if self.kind == "switch":
            if text.lower() not in _SWITCH:
                raise PolicyError(f"{self.variable} of this node must be true or false")
            return _SWITCH[text.lower()]
        if self.kind == "pattern":
            try:
                re.compile(text)
            except re.error:
                raise PolicyError(f"{self.variable} of this node is not a regular expression") from None
        if self.kind == "words":
            return tuple(word for word in re.split(r"[\s,]+", text) if word)
        if self.kind == "lines":
            return tuple(line.strip() for line in text.splitlines() if line.strip())
        if self.kind == "secret" and not re.fullmatch(r"[0-9a-fA-F]{64,}", text):
            raise PolicyError(f"{self.variable} of this node must be 64 hexadecimal digits or more")
        return text

    def _number(self, text: str) -> float:
        low, high = self.range
        # No underscores, no signs that Python would also read.
        form = r"[0-9]{1,19}" if self.kind == "whole" else r"[0-9]{1,19}(\.[0-9]{1,19})?([eE]-?[0-9]{1,2})?"
        if not re.fullmatch(form, text):
            what = "whole numbers" if self.kind == "whole" else "numbers"
            raise PolicyError(f"{self.variable} of this node must be {what}, from {low:g} to {high:g}")
        number = int(text) if self.kind == "whole" else float(text)
        if not low <= number <= high:
            raise PolicyError(f"{self.variable} of this node is {number:g}; it must be from {low:g} to {high:g}")
        return number

    def loosens(self, value: Any, preset: Any) -> bool:
        """Say whether a value protects less than the preset's."""
        if self.tighter is None or value == preset:
            return False
        if self.tighter in ("on", "off"):
            return bool(value) != (self.tighter == "on")
        if preset is None:
            return False
        return value is None or (value < preset if self.tighter == "more" else value > preset)


def _rule(
    field: str, name: str, kind: Any, values: tuple[Any, Any, Any], tighter: Any, means: str, **more: Any
) -> Rule:
    return Rule(field, PREFIX + name, kind, values, tighter, means, **more)


RULES: tuple[Rule, ...] = (
    _rule("minimum_rows", "MINIMUM_NUMBER_OF_RECORDS", "whole", (10, 10, 20), "more",
          "fewest rows with a target that may be learned from"),
    _rule("minimum_part_rows", "MINIMUM_NUMBER_OF_RECORDS_PER_PART", "whole", (3, 5, 10), "more",
          "fewest rows in a part of a split, and with a value in a column: sums over one row are that row"),
    _rule("minimum_cell", "MINIMUM_CELL_SIZE", "whole", (5, 5, 10), "more",
          "fewest rows behind a count, a cell or a difference of two answers"),
    _rule("minimum_label_rows", "MINIMUM_ROWS_PER_LABEL", "whole", (1, 5, 10), "more",
          "fewest rows that have a label or category which is named"),
    _rule("minimum_sites", "MINIMUM_ORGANIZATIONS", "whole", (1, 1, 3), "more",
          "fewest sites that must be asked in the same round, so that a sum hides this one"),
    _rule("allowed_columns", "ALLOWED_COLUMNS_REGEX", "pattern", (None, None, None), None,
          "regular expression that the whole name of every column used must match"),
    _rule("allowed_queries", "ALLOWED_QUERIES", "lines", (None, (), ()), None,
          "SQL queries, or their SHA-256, one a line, that this node runs; trusted: any"),
    _rule("approved_experiments", "APPROVED_EXPERIMENTS", "words", (None, None, ()), None,
          "hashes of `v6-algorithm approve FILE`; where there is a list, nothing else is answered"),
    _rule("request_chain", "REQUEST_CHAIN", "switch", (False, True, True), "on",
          "the server must show that this image's central function, itself asked by a person, sent the request"),
    _rule("request_order", "REQUEST_ORDER", "switch", (False, True, True), "on",
          "requests come as a training run makes them, of one experiment, and models that the site helped to make"),
    _rule("researcher_weights", "RESEARCHER_WEIGHTS", "switch", (True, False, False), "off",
          "training may begin with weights that the researcher sends (start.weights: FILE)"),
    _rule("secret_folds", "SECRET_FOLDS", "switch", (False, True, True), "on",
          "splits, drawn rows and batches follow a secret of the node too, so that the asker does not know them"),
    _rule("maximum_share_of_sums", "MAXIMUM_SHARE_OF_SUMS", "number", (None, 1 / 3, 0.2), "less",
          "independent sums over rows, of all answers of a job together, as a share of the rows", range=(0, 1)),
    _rule("refuse_differences", "REFUSE_DIFFERENCES", "switch", (False, True, True), "on",
          "refuse an answer that differs from an earlier one by fewer rows than a cell has"),
    _rule("require_ledger", "REQUIRE_LEDGER", "switch", (False, False, True), "on",
          "nothing is answered unless the ledger lasts over tasks: V6_ALGORITHM_LEDGER_FOLDER names a folder"),
    _rule("minimum_batch", "MINIMUM_BATCH_SIZE", "whole", (1, 8, 16), "more",
          "fewest rows in a training batch, where there are so many"),
    _rule("minimum_update_rows", "MINIMUM_ROWS_PER_UPDATE", "whole", (1, 10, 20), "more",
          "fewest rows that an update comes from, where there are so many: batch size times steps"),
    _rule("refuse_isolated_rows", "REFUSE_ISOLATED_ROWS", "switch", (False, True, True), "on",
          "the node tries to read single rows out of each update before it goes, and keeps one that gives any away"),
    _rule("coarse_histograms", "COARSE_HISTOGRAMS", "switch", (False, True, True), "on",
          "bins of the metrics' histograms are joined until each holds a cell's rows"),
    _rule("round_metrics", "ROUND_METRICS", "switch", (True, True, False), "off",
          "models are measured in rounds too, as early stopping and the best round need it, and not only at the end"),
    _rule("patient_hashes", "PATIENT_HASHES", "switch", (True, False, False), None,
          "tells keyed hashes of data.group, so that a patient at two sites is noticed; with AGGREGATION_SECRET as the "
          "key, nobody but the nodes can try numbers against them"),
    _rule("secure_aggregation_sites", "SECURE_AGGREGATION_FROM_SITES", "whole", (None, None, None), "less",
          "from so many sites on, updates leave only under secure aggregation", range=(2, _ANY)),
    _rule("maximum_epsilon", "MAXIMUM_EPSILON", "number", (None, None, None), "less",
          "differential privacy is required; all trainings on a database together, without a ledger folder those of "
          "one task, have at most this epsilon", range=(0.001, 1000)),
    _rule("maximum_delta", "MAXIMUM_DELTA", "number", (0.001, 0.00001, 0.00001), "less",
          "delta at which that epsilon is counted, and the largest that an experiment may ask for",
          range=(1e-12, 0.1)),
    _rule("maximum_rounds", "MAXIMUM_ROUNDS", "whole", (10_000, 1_000, 1_000), None, "rounds of an experiment"),
    _rule("maximum_experiments", "MAXIMUM_EXPERIMENTS_PER_JOB", "whole", (10_000, 200, 1), None,
          "experiments in one task: settings that `tune` tries"),
    _rule("maximum_folds", "MAXIMUM_FOLDS", "whole", (1_000, 1_000, 100), None, "folds times repeats of a split"),
    _rule("maximum_row_passes", "MAXIMUM_ROW_PASSES", "whole", (10**10, 10**9, 10**9), None,
          "training rows times epochs (or batch size times steps) of one request", range=(1, 10**15)),
    _rule("maximum_width", "MAXIMUM_LAYER_WIDTH", "whole", (65_536, 65_536, 65_536), None, "units of a hidden layer"),
    _rule("maximum_layers", "MAXIMUM_LAYERS", "whole", (256, 256, 256), None, "hidden layers, or blocks"),
    _rule("maximum_parameters", "MAXIMUM_PARAMETERS", "whole", (10**9, 3 * 10**8, 3 * 10**8), None,
          "numbers in a model", range=(1, 10**12)),
    _rule("maximum_pixels", "MAXIMUM_IMAGE_PIXELS", "whole", (2**30, 2**28, 2**28), None,
          "pixels or voxels of an image as it is read, channels included", range=(1, 10**12)),
    _rule("maximum_cells", "MAXIMUM_CELLS", "whole", (10**10, 2 * 10**9, 2 * 10**9), None,
          "numbers in a table as it is trained on: rows times inputs, each category and each time of a series one",
          range=(1, 10**15)),
    _rule("maximum_seconds", "MAXIMUM_SECONDS_PER_REQUEST", "whole", (None, 86_400, 86_400), None,
          "seconds that one request may take"),
    _rule("resident", "RESIDENT", "switch", (True, True, True), None,
          "a process may stay from round to round of a job, with its rows in memory; off: each request loads anew"),
    _rule("ledger_folder", "LEDGER_FOLDER", "path", (None, None, None), None,
          "folder in which the ledger lasts from job to job; without it budgets and secrets last as long as the job, "
          "and which rows were told of in the node's own volume"),
    _rule("model_folder", "MODEL_FOLDER", "path", (None, None, None), None,
          "folder into which the final test of a run writes what of its model stays here: private layers, a personal "
          "model"),
    _rule("folds_secret", "FOLDS_SECRET", "secret", (None, None, None), None,
          "the secret of the splits; without it, the node draws one for each ledger"),
    _rule("node_secret", "NODE_SECRET", "secret", (None, None, None), None,
          "a secret of this node alone: without it the job's folder does not give its keys of secure aggregation; it "
          "keys the fingerprint of the table's file, which is told where there is one"),
    _rule("aggregation_secret", "AGGREGATION_SECRET", "secret", (None, None, None), None,
          "a secret that the nodes share: keys of secure aggregation must bear its seal"),
)  # fmt: skip
BY_FIELD = {rule.field: rule for rule in RULES}
BY_VARIABLE = {rule.variable: rule for rule in RULES}
