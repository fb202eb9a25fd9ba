"""Sample grids of what a generative model makes: in which rounds a site is asked for one, and what it must be.

A picture is of synthetic images only, and of the model that the request carries: whoever has the model can make it. One
site makes it, each time another one, for the researcher to see a model grow.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from v6_algorithm.exchange import png
from v6_algorithm.exchange.png import GRID_CLASSES, GRID_COLUMNS, GRID_GAP, GRID_PIXELS

if TYPE_CHECKING:
    from v6_algorithm.coordinator.evaluation.model_evaluation import ModelEvaluation
    from v6_algorithm.coordinator.rounds.folds import FoldProgress
    from v6_algorithm.data.preparation import Setup
    from v6_algorithm.experiment import Experiment

# Sample grids in a result, the first and the last round's among them.
MOST = 12
_MOST_SIDE = max(GRID_CLASSES, GRID_COLUMNS) * (GRID_PIXELS + GRID_GAP)
# More than such a picture has without compression, in base64.
_MOST_LETTERS = (_MOST_SIDE * (3 * _MOST_SIDE + 1) + 4096) * 4 // 3


class SampleGrids:
    """Asks for pictures of what one fold's models make: of the first and the last round, of the kept, and some between.

    Parameters
    ----------
    experiment
        Of a problem that makes nothing there are none; nor where each site has a model of its own.
    fold
        Where the pictures go.
    """

    def __init__(self, experiment: Experiment, fold: FoldProgress) -> None:
        wanted = experiment.problem.generative and experiment.mode != "local"
        self._rounds = rounds_shown(experiment.rounds) if wanted else set()
        self._fold = fold

    def ask(self, items: Iterable[dict[str, Any]]) -> None:
        """Let one of the sites that these items of a round go to show what the model makes that they measure."""
        if self._fold.unscored and self._fold.rounds_done in self._rounds:
            self._ask([item for item in items if item["fold"] == self._fold.number], self._fold.rounds_done)

    def ask_at_the_end(self, pairs: Iterable[tuple[ModelEvaluation, dict[str, Any]]]) -> None:
        """Do the same with each of the models that may be kept, and items in which sites are to measure it."""
        by_round: dict[int, list[dict[str, Any]]] = {}
        for measured, item in pairs if self._rounds else ():
            if measured.fold is self._fold and measured.round:
                by_round.setdefault(measured.round, []).append(item)
        for number, items in by_round.items():
            if number not in self._fold.samples:
                self._ask(items, number)

    @staticmethod
    def _ask(items: list[dict[str, Any]], number: int) -> None:
        if items:
            items[number % len(items)]["samples"] = True


def rounds_shown(rounds: int) -> set[int]:
    """Return the rounds whose model is shown: the first, the last, and evenly between; from 1."""
    shown = min(rounds, MOST)
    return {1 + round(place * (rounds - 1) / max(shown - 1, 1)) for place in range(shown)}


def checked(picture: Any, *, asked: bool) -> str:
    """Return the pixels of a picture that a site sent, base64 of a PNG; other things that it held are gone.

    Raises
    ------
    ValueError
        When it was not asked for, is too large, or is no such picture.
    """
    if not asked:
        raise ValueError("nobody asked for them")
    if not isinstance(picture, str) or len(picture) > _MOST_LETTERS:
        raise ValueError("they are no text, or too long a one")
    try:
        content = base64.b64decode(picture, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("they are not base64") from None
    return base64.b64encode(png.pixels_only(content, most_side=_MOST_SIDE)).decode()


def gallery(experiment: Experiment, setup: Setup, fold: FoldProgress) -> dict[str, Any] | None:
    """Return the pictures of a fold as they are in the result: the classes by line, and a PNG by round.

    No classes are named where the generator is not told any. None where there are no pictures.
    """
    if not fold.samples:
        return None
    classes = (setup.classes or [])[:GRID_CLASSES] if experiment.problem.told_classes else []
    return {
        "classes": [str(label) for label in classes],
        "rounds": [{"round": number, "png": fold.samples[number]} for number in sorted(fold.samples)],
    }
