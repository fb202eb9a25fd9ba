"""What a run tells as it goes, for progress displays and trackers: each site's reply and each round, as events."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from typing import Any

from v6_algorithm.coordinator.call_log import Event
from v6_algorithm.coordinator.result.averages import mean_of, round_scores
from v6_algorithm.coordinator.rounds.folds import FoldProgress
from v6_algorithm.exchange.joint import JointItem
from v6_algorithm.exchange.protocol import Replies
from v6_algorithm.experiment import Experiment
from v6_algorithm.learning.metrics import compute, merge_states

# Shown after every round where a problem has them, beside the loss and the monitored metric.
HEADLINES = ("auroc", "c_index", "accuracy", "r2", "fid")


class WhenRead(Mapping[str, Any]):
    """A mapping that is made when somebody looks into it: most runs have nobody who listens so closely."""

    def __init__(self, make: Callable[[], dict[str, Any]]) -> None:
        self._make = make

    @cached_property
    def _content(self) -> dict[str, Any]:
        return self._make()

    def __getitem__(self, key: str) -> Any:
        return self._content[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._content)

    def __len__(self) -> int:
        return len(self._content)


class ProgressEvents:
    """Tells of the rounds of one group of sites.

    Parameters
    ----------
    experiment
        For what is monitored, and how many rounds there are.
    folds
        What is known, at the time it is told.
    on_event
        Called with a small dictionary each time.
    """

    def __init__(
        self, experiment: Experiment, folds: Sequence[FoldProgress], on_event: Callable[[Event], None]
    ) -> None:
        self._experiment = experiment
        self._folds = folds
        self._on_event = on_event
        self._shown = list(dict.fromkeys(["loss", experiment.stopping.monitor, *HEADLINES]))

    def reply(self, number: int, site: str, items: Sequence[Mapping[str, Any]], seconds: float | None) -> None:
        """Report one site's reply to a round: its training loss, and how good the model it received is there."""
        states = [state for item in items for state in item["metrics"].get("validation", {}).values()]
        losses = [(item["loss"]["sum"], item["loss"]["rows"]) for item in items if "loss" in item]
        event = {
            "event": "reply",
            "round": number,
            "site": site,
            "metrics": WhenRead(partial(self._told, losses, states)),
            "seconds": seconds,
        }
        self._on_event(event)

    def joint(
        self,
        number: int,
        items: Sequence[JointItem],
        states: Sequence[Mapping[str, dict[str, Any]]],
        seconds: Mapping[str, float],
    ) -> None:
        """Report the replies of all sites as `reply` does, each of which is put together when somebody looks.

        `states` are for each item how good its model is, by hospital.
        """
        hospitals = [
            dict(zip(measured.sites, measured.hospitals, strict=True)) if measured is not None else {}
            for item in items
            for measured in [item.metrics.get("validation")]
        ]
        places = [
            {} if item.training is None else {site: place for place, site in enumerate(item.training.sites)}
            for item in items
        ]

        def metrics(site: str) -> dict[str, Any]:
            losses = [
                (item.training.losses[place_of[site]], item.training.seen[place_of[site]])
                for item, place_of in zip(items, places, strict=True)
                if item.training is not None and site in place_of
            ]
            measured = [
                of_item[hospital_of[site]]
                for of_item, hospital_of in zip(states, hospitals, strict=True)
                if site in hospital_of
            ]
            return self._told(losses, measured)

        for site in dict.fromkeys(site for item in items for site in item.places):
            event = {"event": "reply", "round": number, "site": site, "metrics": WhenRead(partial(metrics, site))}
            self._on_event(event | {"seconds": seconds.get(site)})

    def _told(self, losses: Sequence[tuple[float, int]], states: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Return the metrics of a site's reply: summed losses with their rows, and states, each of one item."""
        trained = {"train_loss": sum(loss for loss, _ in losses) / sum(rows for _, rows in losses)} if losses else {}
        measured = compute(merge_states(states)) if states else {}
        return trained | {
            f"validation_{name}": measured[name] for name in self._shown if measured.get(name) is not None
        }

    def round(self, number: int, replies: Replies, epsilon: float | None = None) -> None:
        """Report a round: its training loss, and the newest validation, which is of the round before or of this.

        `epsilon` is what training has cost so far under differential privacy.
        """
        newest = mean_of([fold.newest() for fold in self._folds])
        validated = max((fold.rounds_scored for fold in self._folds), default=0)
        shown = ["train_loss", *(f"validation_{name}" for name in self._shown)]
        self._on_event(
            {
                "event": "round",
                "round": number,
                "rounds": self._experiment.rounds,
                "validated_round": validated,
                # For trackers what the history will have: of training in this round, the others in the validated one.
                "scores": WhenRead(lambda: self._of_round(number, validated)),
                "metrics": {name: newest[name] for name in shown if newest.get(name) is not None},
                "missing": {site: str(reason) for site, reason in replies.missing.items()},
                **({} if epsilon is None else {"epsilon": epsilon}),
            }
        )

    def _of_round(self, number: int, validated: int) -> dict[str, Any]:
        return {
            # Where each site trains alone, the mean over all is not known before the last has trained.
            "pooled": {} if self._experiment.mode == "local" else self._scores(number, validated),
            "sites": {
                site: self._scores(number, validated, site)
                for site in sorted({site for fold in self._folds for site in fold.at_sites})
            },
        }

    def _scores(self, trained: int, validated: int, site: str | None = None) -> dict[str, float]:
        return round_scores(self._folds, trained, "train", site) | round_scores(
            self._folds, validated, "validation", site
        )
