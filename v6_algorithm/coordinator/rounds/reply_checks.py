"""The checks on a reply to training or evaluation, all done before any of it is used; `master` calls them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from v6_algorithm.coordinator.evaluation.sample_grid import checked
from v6_algorithm.coordinator.evaluation.subgroups import GroupSums
from v6_algorithm.coordinator.preparation.plan import Plan
from v6_algorithm.coordinator.secure_aggregation import ALL_SITES
from v6_algorithm.errors import WireError
from v6_algorithm.exchange.downlink import ROUNDED
from v6_algorithm.exchange.joint import Joint, JointItem
from v6_algorithm.exchange.protocol import Replies
from v6_algorithm.exchange.text import printable
from v6_algorithm.experiment.privacy import DifferentialPrivacy
from v6_algorithm.learning.metrics import checked_state, shape_of
from v6_algorithm.learning.metrics.by_site import SiteStates, StateByHospital
from v6_algorithm.learning.metrics.survival import check_baseline

States = Mapping[str, dict[str, Any]]
# What an item of a request may ask for where all replies are looked at together.
_PLAIN = {"fold", "parameters", ROUNDED, "evaluate", "train", "strategy", "lr", "baseline"}
# From site, its item of the reply and the item of the request, to what a strategy makes of it; raises WireError.
Read = Callable[[str, dict[str, Any], dict[str, Any]], Any]


class ReplyCheck:
    """Checks replies, and drops those that fail.

    Parameters
    ----------
    plan
        What the sites agreed on.
    read
        Reads what a site that was to train gave: its strategy's `read`, by fold.
    private
        What the experiment says of differential privacy.

    Attributes
    ----------
    plan
        What the sites agreed on; it grows when one joins.
    devices
        What each site last said it computes on.
    epsilons
        Site to round to what its training has cost so far, under differential privacy.
    notes
        Sentences for the researcher, on sites that lost layers of their own, whose memory was too small, or that sent
        a picture that is none.
    """

    def __init__(self, plan: Plan, read: dict[int, Read], private: DifferentialPrivacy | None = None) -> None:
        self.devices: dict[str, dict[str, str]] = {}
        self.epsilons: dict[str, dict[int, float]] = {}
        self._private = private
        self.notes: list[str] = []
        self.plan = plan
        self._read = read
        # The last device that a site told of, and what is kept of it: of sites that are simulated together it is one.
        self._device: tuple[dict[str, Any], dict[str, str]] | None = None
        # The first site's metrics say what the others' must be like to be added up.
        self._shape: list[Any] | None = None

    def expect_other_metrics(self) -> None:
        """Let the next reply say anew what the others' metrics must be like."""
        self._shape = None

    def state_dict(self) -> dict[str, Any]:
        """Return what the sites said of themselves, and what metrics must be like."""
        epsilons = {site: sorted(rounds.items()) for site, rounds in self.epsilons.items()}
        return {"devices": self.devices, "notes": self.notes, "shape": self._shape, "epsilons": epsilons}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        self.devices, self.notes, self._shape = dict(state["devices"]), list(state["notes"]), state["shape"]
        self.epsilons = {
            site: {int(round): cost for round, cost in rounds} for site, rounds in state.get("epsilons", {}).items()
        }

    def items(
        self, replies: Replies, site: str, reply: dict[str, Any], asked: list[dict[str, Any]]
    ) -> list[dict[str, Any]]:
        """Return a reply's items, with what was trained under "reply"; none of one that fails, which is counted and
        named, and of which nothing is used."""
        try:
            return self._check(site, reply, asked)
        except (WireError, ValueError) as error:
            replies.reject(site, str(error))
        except (KeyError, TypeError, AttributeError):
            replies.reject(site, "malformed reply")
        return []

    def joint(self, joint: Joint, asked: Mapping[str, list[dict[str, Any]]]) -> list[dict[str, States]] | None:
        """Check the replies of all sites at once as `items` does one by one, but for what training gave.

        Returns
        -------
        list of dict, or None
            For each item, by part, the states by hospital. None where anything is not as expected: then each reply is
            to be looked at by itself, which says whose is wrong.
        """
        if self._private is not None or "pieces" in joint.device or list(joint.heads) != list(asked):
            return None
        states = []
        for place, item in enumerate(joint.items):
            wanted = {site: items[place] for site, items in asked.items() if len(items) == len(joint.items)}
            if list(item.places) != list(wanted) or set(item.places.values()) != {place}:
                return None
            if len(wanted) != len(asked) or not all(
                each["fold"] == item.fold and each.keys() <= _PLAIN for each in wanted.values()
            ):
                return None
            trained = [site for site, each in wanted.items() if each["train"]]
            given = item.training
            if trained != (given.sites if given is not None else []):
                return None
            planned = [self.plan.rows[site][item.fold]["train"] for site in trained]
            if given is not None and given.rows != planned:
                return None
            try:
                self._check_baseline(item, wanted)
                measured = self._measured(item, wanted)
            except (WireError, ValueError, KeyError, TypeError):
                return None
            if measured is None:
                return None
            states.append(measured)
        for site in asked:
            self._check_device(site, joint.device)
        return states

    def _check_baseline(self, item: JointItem, wanted: Mapping[str, dict[str, Any]]) -> None:
        """Check the sums of a baseline hazard of all sites at once, of each as `check_sums` does."""
        sums = dict(item.baseline.by_site()) if item.baseline is not None else {}
        for site, asked in wanted.items():
            told = {"baseline": sums.pop(site)} if site in sums else {}
            check_sums(told, asked.get("baseline"), self.plan.counts[item.fold])
        if sums:
            raise WireError("a site that was not asked tells of a baseline hazard")

    def _measured(self, item: JointItem, wanted: Mapping[str, dict[str, Any]]) -> dict[str, States] | None:
        """Return the states of an item by part and hospital, where they are as they should be."""
        known = self.plan.counts[item.fold]
        parts = {part for each in wanted.values() for part in each["evaluate"]}
        if parts != set(item.metrics):
            return None
        states: dict[str, States] = {}
        for part, measured in item.metrics.items():
            table, asked = measured.table, [site for site, each in wanted.items() if part in each["evaluate"]]
            hospitals = {hospital: number for number, hospital in enumerate(measured.hospitals)}
            if measured.sites != asked or not hospitals.keys() <= known.keys() or len(hospitals) != len(asked):
                return None
            if not isinstance(table, SiteStates):
                of_sites = [checked_state(state) for state in measured.states or ()]
                if len(of_sites) != len(asked):
                    return None
                for state in of_sites:
                    self._check_metrics(state)
                states[part] = dict(zip(hospitals, of_sites, strict=True))
                continue
            if len(table.rows) != len(asked):
                return None
            self._shape = self._shape or table.shape
            if table.shape != self._shape or table.n_classes != len(self.plan.setup.classes or ()):
                return None
            states[part] = StateByHospital(hospitals, table)
        return states

    def groups(
        self, replies: Replies, site: str, reply: dict[str, Any], asked: list[dict[str, Any]], sums: GroupSums
    ) -> bool:
        """Add what a site tells of groups of rows beside its items; a wrong answer is counted and named, and False."""
        try:
            sums.take(reply["subgroups"], asked, self.plan, self._shape)
            return True
        except (WireError, ValueError) as error:
            replies.reject(site, str(error))
        except (KeyError, TypeError, AttributeError):
            replies.reject(site, "malformed reply")
        return False

    def _check(self, site: str, reply: dict[str, Any], asked: list[dict[str, Any]]) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = reply["folds"]
        if [item["fold"] for item in items] != [wanted["fold"] for wanted in asked]:
            raise WireError("it answers for other folds than it was asked for")
        for item, wanted in zip(items, asked, strict=True):
            if set(item["metrics"]) != set(wanted["evaluate"]):
                raise WireError("it measured other parts than it was asked for")
            for states in item["metrics"].values():
                for name, state in states.items():
                    if name not in self.plan.counts[item["fold"]]:
                        raise WireError(f"it measured a hospital '{name[:40]}' that is not known")
                    # From here on it is known to be sound, and is not looked through again.
                    states[name] = checked_state(state)
                    self._check_metrics(states[name])
            if "private" in wanted:
                self._check_private(site, reply["round"], item["private"], wanted["private"]["round"])
            self._check_samples(site, reply["round"], item, wanted)
            check_sums(item, wanted.get("baseline"), self.plan.counts[item["fold"]])
            if wanted["train"]:
                self._check_rows(site, item)
                item["reply"] = self._read[item["fold"]](site, item, wanted)
        self._check_epsilon(site, reply, trained=any(wanted["train"] for wanted in asked))
        self._check_device(site, reply["device"])
        return items

    def _check_epsilon(self, site: str, reply: Mapping[str, Any], *, trained: bool) -> None:
        """Book what a site's training has cost; where rows are hidden in a sum, the plan bounds each site's."""
        if self._private is None or not trained:
            if "epsilon" in reply:
                raise WireError("it tells of differential privacy, which was not asked for")
            return
        cost, most = reply.get("epsilon"), self._private.epsilon
        if site == ALL_SITES and self._private.unit != "site":
            cost = most
        # A site rounds up to four places.
        if isinstance(cost, bool) or not isinstance(cost, (int, float)) or not 0 <= cost <= most + 1e-3:
            raise WireError(f"its epsilon must be a number from 0 to privacy.differential_privacy.epsilon, {most:g}")
        self.epsilons.setdefault(site, {})[int(reply["round"])] = min(float(cost), most)

    def _check_rows(self, site: str, item: dict[str, Any]) -> None:
        """Refuse an update that claims other rows than the site told of in preparation: they are its weight."""
        planned = self.plan.rows[site][item["fold"]]["train"]
        if site == ALL_SITES and type(item["rows"]) is int and 0 < item["rows"] <= planned:
            return  # some of all sites may have dropped out of the sum
        if type(item["rows"]) is not int or item["rows"] != planned:
            raise WireError(f"it claims other training rows than the {planned} that it told of in preparation")

    def _check_device(self, site: str, device: dict[str, Any]) -> None:
        if self._device is None or self._device[0] is not device:
            self._device = device, {key: printable(device[key], 100) for key in ("name", "precision")}
        self.devices[site] = self._device[1]
        if "pieces" not in device:
            return
        batch, pieces = device["batch"], device["pieces"]
        if type(batch) is not int or type(pieces) is not int or not 1 <= pieces < batch:
            raise WireError("what it says of its batches must be whole numbers, the pieces smaller than the batch")
        self.notes.append(
            f"site '{site}': a batch of {batch} rows did not fit the memory of {self.devices[site]['name']}; it was "
            f"trained in pieces of {pieces}, at the same mean over its rows (BatchNorm, if there is any, saw each "
            "piece by itself)"
        )

    def _check_private(self, site: str, number: int, version: Any, wanted: int) -> None:
        if type(version) is not int or version not in (wanted, 0):
            raise WireError("its own layers are of another round than asked for")
        if version != wanted:
            self.notes.append(
                f"round {number}: site '{site}' had lost its own layers, of round {wanted}, and took the initial ones"
            )

    def _check_samples(self, site: str, number: int, item: dict[str, Any], wanted: dict[str, Any]) -> None:
        """Leave a picture of samples out where it is not what was asked for; the rest of the reply counts."""
        if (picture := item.pop("samples", None)) is None:
            return
        try:
            item["samples"] = checked(picture, asked=bool(wanted.get("samples")))
        except ValueError as error:
            self.notes.append(f"round {number}: the samples of site '{site}' are left out: {error}")

    def _check_metrics(self, state: dict[str, Any]) -> None:
        shape = shape_of(state)
        self._shape = self._shape or shape
        if shape != self._shape:
            raise WireError("its metrics are of another kind or shape than those of the other sites")
        classes = self.plan.setup.classes or ()
        if state["kind"] == "classification" and state["n_classes"] != len(classes):
            raise WireError("its metrics are of another number of classes")


def check_sums(item: Mapping[str, Any], times: int | None, hospitals: Collection[str]) -> None:
    """Check what a site told of the baseline hazard, of so many times if it was asked; raises as `check_baseline`."""
    if ("baseline" in item) != bool(times):
        raise WireError("it tells of a baseline hazard and was not asked, or was and does not")
    for name, state in item.get("baseline", {}).items():
        if name not in hospitals:
            raise WireError(f"it measured a hospital '{name[:40]}' that is not known")
        check_baseline(state, times or 0)
