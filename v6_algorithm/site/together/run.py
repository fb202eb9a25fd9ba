"""What the sites of one simulated run share: the problem, its networks, and each site's table, read by its rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from v6_algorithm.site.context import SiteContext
from v6_algorithm.site.state.private_layers import shared_and_own
from v6_algorithm.site.work import Work

if TYPE_CHECKING:
    from torch import Tensor

    from v6_algorithm.data.table import TableData
    from v6_algorithm.learning.problems.base import Networks, Problem
    from v6_algorithm.learning.training.device import Device
    from v6_algorithm.learning.training.loop import Rows
    from v6_algorithm.site.policy import Policy

# Bytes of inputs of one part of all sites that are held a second time, beside each other.
_MOST_BYTES = 2**30


@dataclass
class Session:
    """One site's part of a run: its table and rows, as its rules gave them out.

    Attributes
    ----------
    work
        The request that opened it.
    rules
        The number of the owner's rules among the different ones that the sites of the run have.
    """

    work: Work
    table: TableData
    parts: list[dict[str, Tensor]]
    rules: int
    rows: dict[int, Rows] = field(default_factory=dict)


class Run:
    """What all sites of a run share: the problem and its networks, and the sites' sessions."""

    def __init__(self, work: Work) -> None:
        import torch

        from v6_algorithm.learning.problems import create_problem
        from v6_algorithm.learning.training.device import Device
        from v6_algorithm.learning.training.learner import has_fused_step
        from v6_algorithm.learning.training.state import build_shapes, load_state, state_of
        from v6_algorithm.learning.training.together import is_large, reason_against

        self.experiment, self.setup = work.experiment, work.setup()
        self.problem: Problem = create_problem(self.experiment, self.setup)
        # Of a Cox model the baseline hazards that the problem predicts with, as the requests had them.
        self._hazards: Any = _hazards([work.request["setup"]])
        self.device: Device = Device.choose(self.experiment.training)
        # Without numbers, which no model needs that is trained by each site itself.
        self.networks: Networks = build_shapes(self.problem)
        self.shared, self.private = shared_and_own(work, self.networks)
        self.sessions: dict[str, Session] = {}
        # The owners' rules that differ: what one of them says of a request, its equals say too.
        self.rules: list[Policy] = []
        # Inputs, targets and lengths of a part at some sites, beside each other.
        self._joined: dict[Any, tuple[Tensor, Tensor, list[int]]] = {}
        # Where most of a site's training is its optimiser's, it steps in one pass; the rest stays exact to the bit.
        training = self.experiment.training
        self.fuses = self.device.kind == "cpu" and has_fused_step(training) and is_large(self.networks, training)
        apart = self._reason()
        self.reason = apart or reason_against(self.problem, self.networks, self.experiment.training)
        # Sites that each add up sums for a model, in the place of training, can still be measured together.
        sums = self.problem.sums_of_squares and "target.entry" not in self.experiment.data.target_columns
        self._reason_to_measure = apart if sums else self.reason
        if self._reason_to_measure is None:
            empty = {name: torch.empty(of.shape, dtype=of.dtype) for name, of in state_of(self.networks).items()}
            load_state(self.networks, empty)
        for network in self.networks.values():
            network.eval()
        # Their tensors, by the names of a state.
        self._tensors: dict[str, Tensor] = state_of(self.networks)

    def goes_together(self, method: str) -> bool:
        """Say whether sites can answer such a call together: ``train`` or ``evaluate``."""
        return (self.reason if method == "train" else self._reason_to_measure) is None

    def rules_of(self, policy: Policy) -> int:
        """Return the number of an owner's rules, those of other owners that are equal among them."""
        if policy not in self.rules:
            self.rules.append(policy)
        return self.rules.index(policy)

    def measure_with(self, setups: Sequence[Mapping[str, Any]]) -> None:
        """Predict with the baseline hazards that the sites' requests carry, each of its own hospital."""
        from v6_algorithm.data.preparation.setup import unpack_arrays
        from v6_algorithm.learning.problems import create_problem

        given = _hazards(setups)
        if given == self._hazards:
            return
        pooled, of_hospitals = self._hazards = given
        baselines = {name: hazard for text in of_hospitals for name, hazard in unpack_arrays(text).items()}
        baseline = None if pooled is None else unpack_arrays(pooled)["hazard"]
        self.setup = replace(self.setup, baseline=baseline, baselines=baselines)
        self.problem = create_problem(self.experiment, self.setup)

    def load(self, received: Mapping[str, Tensor]) -> None:
        """Copy a model into the networks, which nobody trains."""
        for name, tensor in received.items():
            self._tensors[name].copy_(tensor)

    def start(self) -> dict[str, Tensor]:
        """Return the model that training begins with, which follows from the seed."""
        from v6_algorithm.learning.training.state import build_networks, state_of

        state = state_of(build_networks(self.problem))
        return {name: state[name] for name in self.shared}

    def _reason(self) -> str | None:
        experiment = self.experiment
        if experiment.privacy.secure_aggregation is not None:
            return "secure aggregation: each site's answer is masked by itself"
        if experiment.privacy.differential_privacy is not None:
            return "differential privacy: each site draws batches and noise of its own, and books them"
        if self.private is not None:
            return "strategy.private: each site has layers of its own"
        if experiment.strategy.kind == "cyclic":
            return "strategy cyclic trains at one site after the other"
        if experiment.mode != "federated":
            return f"mode {experiment.mode}: no two sites train the same model"
        if experiment.start.at_sites:
            return "start.weights: each site has its own"
        if self.device.kind != "cpu":
            return "on a GPU: what is batched here stays in the processor's memory"
        return None

    def joined_rows(self, sites: Sequence[str], part: str, fold: int) -> tuple[Tensor, Tensor, list[int]]:
        """Return inputs and targets of a part at some sites, one site's rows after the other's, and their numbers."""
        import torch

        key = tuple(sites), part, fold
        if (known := self._joined.get(key)) is not None:
            return known
        pieces = [self._rows_of(site, fold, part) for site in sites]
        joined = (
            torch.cat([inputs for inputs, _ in pieces]),
            torch.cat([target for _, target in pieces]),
            [len(target) for _, target in pieces],
        )
        held = sum(inputs.nbytes for inputs, _, _ in self._joined.values())
        if self.comes_again(part) and held + joined[0].nbytes <= _MOST_BYTES:
            self._joined[key] = joined
        return joined

    def forget_rows(self) -> None:
        """Let go of rows that lie beside each other, for other sites are asked from now on."""
        self._joined.clear()

    def comes_again(self, part: str) -> bool:
        """Say whether the same sites are asked for a part again: of those that are drawn to train, the same are not."""
        return part != "train" or self.experiment.participation.fraction == 1

    def _rows_of(self, site: str, fold: int, part: str) -> tuple[Tensor, Tensor]:
        session = self.sessions[site]
        rows = session.rows.get(fold)
        if rows is None:
            rows = session.work.rows(session.table, self.setup, fold, self.device)
            if len(session.table.folds) == 1:
                session.rows[fold] = rows
        numbers = session.parts[fold][part].to(self.device.kind)
        return rows.inputs[numbers], rows.target[numbers]


def run_of(request: dict[str, Any], context: SiteContext, shared: dict[Any, Any]) -> Run:
    """Return what is known of a run, which begins anew when the experiment or the setup is another one."""
    known, agreed = shared.get("together"), as_trained_with(request["setup"])
    if known is None or known[0] is not request["experiment"] or known[1] != agreed:
        known = shared["together"] = request["experiment"], agreed, Run(Work(request, context))
    run: Run = known[2]
    return run


def as_trained_with(setup: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the sites agreed on before training: without the baseline hazards that come of it."""
    return {key: value for key, value in setup.items() if key not in ("baseline", "baselines")}


def _hazards(setups: Sequence[Mapping[str, Any]]) -> tuple[Any, list[Any]]:
    """Return the pooled baseline hazard of some requests, and those of hospitals, packed as they are."""
    return setups[0].get("baseline"), [given for setup in setups if (given := setup.get("baselines")) is not None]


def know_run(
    requests: Mapping[str, dict[str, Any]], contexts: Mapping[str, SiteContext], shared: dict[Any, Any]
) -> bool:
    """Look at what a run's sites share, by which `quicker_steps` and `why_alone` tell; returns whether that went."""
    if not requests:
        return False
    first = next(iter(requests))
    try:
        run_of(requests[first], contexts[first], shared)
        return True
    except Exception:
        # Each site is asked by itself, and then says in its reply what is wrong.
        return False


def why_alone(contexts: Mapping[str, SiteContext], shared: Mapping[Any, Any]) -> str | None:
    """Say why the sites of a run are not trained together; empty where they are, None where no round has told."""
    for context in contexts.values():
        if (reason := reason_of_site(context)) is not None:
            return reason
    if len(contexts) == 1:
        return "there is one site"
    known = shared.get("together")
    return None if known is None else known[2].reason or ""


def reason_of_site(context: SiteContext) -> str | None:
    """Say what in an owner's rules asks that the site is trained by itself; None where nothing does."""
    policy = context.policy
    if policy.request_order or policy.refuse_differences or policy.maximum_share_of_sums is not None:
        return "the node's rules keep a book of every request"
    if policy.refuse_isolated_rows:
        return "the node's rules try to read rows out of each update"
    if policy.maximum_seconds is not None:
        return "the node's rules stop a request that takes long"
    if len(context.sources) > 1:
        return "the site holds several hospitals' tables"
    return None
