"""Watching one fold's training for an update that gives single rows away; `site.learning` begins and ends it.

Watched is the first linear layer of each network, with what it sees of the training rows: of a table the rows
themselves, behind convolutions what these pass on. Of a GLM, which sends sums and no update, it is the sums, and how
many rows they are in truth over.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from v6_algorithm.errors import PolicyError
from v6_algorithm.site.guard.isolation import isolated_rows
from v6_algorithm.site.rules import BY_FIELD
from v6_algorithm.site.state.memory import RoundMemory

if TYPE_CHECKING:
    from torch import Tensor, nn

    from v6_algorithm.learning.problems.base import Networks, Problem
    from v6_algorithm.learning.training.loop import Rows
    from v6_algorithm.site.context import SiteContext

Array = np.ndarray
# Numbers of a layer's inputs that are compared with: 0.1 GB. Of more, the first rows stand for all.
_NUMBERS = 2**24
# Layers of so few units are compared with their earlier rounds, up to so many of these.
_FEW_UNITS, _EARLIER = 8, 2000
# Of a GLM's rows, those that carry its sums must be this share, and as many as a cell has.
_CARRYING = 0.1
# A column of more values than these tells rows apart.
_DISTINCT = 20
# Differences of log-risks beyond which a row weighs nothing.
_FARTHEST = 700.0
_RULE = BY_FIELD["refuse_isolated_rows"].variable


class UpdateWatch:
    """What is remembered of a model before it is trained, to be compared with what is sent.

    Parameters
    ----------
    problem, networks
        As received.
    rows, part
        The prepared rows, and the numbers of those that are trained on.
    """

    def __init__(self, problem: Problem, networks: Networks, rows: Rows, part: Tensor) -> None:
        self._cox = next((net for net in networks.values() if type(net).__name__ == "CoxRegression"), None)
        self._glm = bool(problem.sums_of_squares) and self._cox is None
        self._layers: dict[str, tuple[Array, Array, Array | None]] = {}
        if self._glm or self._cox is not None:
            self._inputs = rows.inputs[part].cpu().double().numpy()
        if self._cox is not None:
            risk = self._cox(rows.inputs[part].double()).detach().cpu().double().numpy()[:, 0]
            self._weights = np.exp(np.maximum(risk - risk.max(initial=-np.inf), -_FARTHEST))
        self._known = _not_imputed(problem) if self._glm else []
        if self._glm:
            (self._name, model), *_ = networks.items()
            self._weights = _weights_of(model, rows.inputs[part])
            if rows.weights is not None:
                self._weights = self._weights * rows.weights[part].cpu().numpy()
            return
        if problem.generative:
            # Its networks see images in an order of their learner's; behind convolutions no linear layer sees rows.
            return
        for name, network in networks.items():
            if (first := _first_linear(network)) is not None:
                path, layer, after = first
                seen = _inputs_of(problem, networks, layer, rows, part)
                if seen is not None:
                    self._layers[f"{name}.{path}" if path else name] = (seen, _matrix(layer), after)

    def check(
        self, sent: Mapping[str, Tensor], *, gradient: bool, smallest: int, context: SiteContext, round: int, key: str
    ) -> None:
        """Refuse what is about to be sent where it gives rows away.

        Parameters
        ----------
        sent
            Tensors by name.
        gradient
            They are a gradient, and not the trained model.
        smallest
            Rows that a cell has.
        context, round, key
            Where a site keeps what it sent in earlier rounds, and under which name.

        Raises
        ------
        PolicyError
            Saying the layer, never which rows.
        """
        if self._cox is not None:
            self._check_carrying(smallest, "cox")
            self._check_risk_sets(cast("Mapping[str, Array]", self._cox.sums))
        if self._glm:
            self._check_sums(sent, smallest, context, round, key)
        for name, (rows, before, after) in self._layers.items():
            weight, bias = sent.get(f"{name}.weight"), sent.get(f"{name}.bias")
            if weight is None or bias is None:
                continue
            now = np.concatenate([_array(weight), _array(bias)[:, None]], axis=1)
            units = now if gradient else now - before
            memory = _Sent(context, round, f"{key}-{name}") if len(units) <= _FEW_UNITS else None
            earlier = None if memory is None else memory.earlier(units.shape[1])
            # By itself, since of few candidates hardly one comes near to a row by chance.
            last = None if earlier is None or len(earlier) < len(units) else earlier[-len(units) :]
            if isolated_rows(rows, units, after, earlier) or (
                last is not None and isolated_rows(rows, units - last, pairs=False)
            ):
                raise PolicyError(
                    f"the update of layer {name} would give single rows away, as if its weights were made for that "
                    f"({_RULE}); smaller batches and more local steps hide rows better than one step over all of them"
                )
            if memory is not None:
                memory.keep(earlier, units)

    def _check_risk_sets(self, sums: Mapping[str, Array]) -> None:
        """Refuse sums by event time of which one row is nearly all, in the rows that leave between two times."""
        if "at_risk" not in sums:
            return
        columns = self._inputs.shape[1]
        at_risk = np.concatenate([sums["at_risk"], np.zeros((1, sums["at_risk"].shape[1]))])
        units = np.concatenate([at_risk, -np.diff(at_risk, axis=0), sums["tied"]])
        units = np.concatenate([units[:, 1 : 1 + columns], units[:, :1]], axis=1)
        # Each by itself: of many sums all pairs would cost more than they tell.
        if isolated_rows(self._inputs, units, pairs=False):
            raise PolicyError(f"the sums of model cox would give single rows away, with these coefficients ({_RULE})")

    def _check_carrying(self, smallest: int, model: str) -> None:
        """Refuse sums whose weights make them sums over a few of the rows."""
        least = max(smallest, _CARRYING * len(self._weights))
        square = float((self._weights**2).sum())
        # Kish's effective sample size.
        if square and float(self._weights.sum()) ** 2 / square < min(least, len(self._weights)):
            raise PolicyError(
                f"the sums of model {model} would be over a few of the rows here, with these coefficients ({_RULE}); "
                "a fit that separates the classes does that: take fewer columns, or model.ridge"
            )

    def _check_sums(
        self, sent: Mapping[str, Tensor], smallest: int, context: SiteContext, round: int, key: str
    ) -> None:
        self._check_carrying(smallest, "glm")
        sums = np.stack([_array(sent[f"{self._name}.score"]), _array(sent[f"{self._name}.information"])[0]])
        units = np.roll(sums, -1, axis=1)
        memory = _Sent(context, round, f"{key}-glm")
        earlier = memory.earlier(units.shape[1])
        if isolated_rows(self._inputs, units, None, earlier):
            raise PolicyError(f"the sums of model glm, beside earlier ones, would give single rows away ({_RULE})")
        memory.keep(earlier, units)
        self._check_tables(units, context, round, key)

    def _check_tables(self, units: Array, context: SiteContext, round: int, key: str) -> None:
        """Refuse sums of an imputed table that differ from another table's in single rows.

        Tables have the same rows, whose imputed columns differ from table to table: rows are looked for by the others.
        """
        if not self._known:
            return
        # All tables of a run have one memory, those of this round too.
        memory = _Sent(context, round, f"{key.rpartition('-')[0]}-tables", this_round=True)
        earlier = memory.earlier(units.shape[1])
        for known in self._known:
            # By what tells rows apart: where all imputed rows are of one kind, every sum over them has its columns.
            columns = [column for column in known if len(np.unique(self._inputs[:, column])) > _DISTINCT]
            places = [*columns, units.shape[1] - 1]
            if columns and isolated_rows(self._inputs[:, columns], units[:, places], None, earlier[:, places]):
                raise PolicyError(
                    f"the sums of model glm, beside those of other imputed tables, would tell single rows ({_RULE})"
                )
        memory.keep(earlier, units)


def _not_imputed(problem: Problem) -> list[list[int]]:
    """Return by which inputs a row is known in all imputed tables; empty where nothing is imputed.

    These are the columns without empty cells, or, of fewer than two such, for each imputed column all others.
    """
    setup = problem.setup
    if setup.imputation is None:
        return []
    blocks, start = {}, 0
    for name, size in [*((name, 1) for name in setup.features), *((n, len(v)) for n, v in setup.categories.items())]:
        blocks[name] = list(range(start, start + size))
        start += size
    imputed = setup.imputation.columns
    whole = [place for name, block in blocks.items() if name not in imputed for place in block]
    if len(whole) > 1:
        return [whole]
    return [[place for other, block in blocks.items() if other != name for place in block] for name in imputed]


class _Sent:
    """What a few units sent in earlier rounds: (sent, inputs + 1); what was kept back is not among it."""

    def __init__(self, context: SiteContext, round: int, name: str, *, this_round: bool = False) -> None:
        self._memory = RoundMemory(context, "sent-" + "".join(letter if letter.isalnum() else "-" for letter in name))
        self._round, self._this_round = round, this_round

    def earlier(self, width: int) -> Array:
        kept = (self._memory.at(self._round) if self._this_round else {}).get("units")
        if kept is None:
            kept = self._memory.before(self._round).get("units")
        return np.zeros((0, width)) if kept is None or kept.shape[1] != width else kept.numpy()

    def keep(self, earlier: Array | None, units: Array) -> None:
        import torch

        sent = units if earlier is None else np.concatenate([earlier, units])
        self._memory.keep(self._round, {"units": torch.from_numpy(sent[-_EARLIER:])})


def _weights_of(model: Any, inputs: Tensor) -> Array:
    """Return the weights of a GLM's rows in its sums, which are all alike before there are coefficients."""
    from v6_algorithm.learning.models.glm import row_weights

    weights: Array = row_weights(model, inputs).cpu().numpy()
    return weights


def _first_linear(network: nn.Module) -> tuple[str, nn.Linear, Array | None] | None:
    """Find the first linear layer with a bias, and the weights by which a single output adds its units up."""
    from torch import nn

    layers = [(path, module) for path, module in network.named_modules() if isinstance(module, nn.Linear)]
    if not layers or layers[0][1].bias is None:
        return None
    path, layer = layers[0]
    after = None
    if len(layers) > 1 and layers[1][1].in_features == layer.out_features and layers[1][1].out_features <= 2:
        weight = _array(layers[1][1].weight)
        after = weight[0] if len(weight) == 1 else weight[0] - weight[1]
    return path, layer, after


def _inputs_of(problem: Problem, networks: Networks, layer: nn.Linear, rows: Rows, part: Tensor) -> Array | None:
    """Return what a layer sees of the rows, (rows, inputs); None of a layer that sees several vectors of a row."""
    import torch

    captured: list[Tensor] = []
    hook = layer.register_forward_hook(lambda _module, inputs, _output: captured.append(inputs[0].detach().cpu()))
    modes = {name: network.training for name, network in networks.items()}
    taken, most = 0, max(_NUMBERS // max(layer.in_features, 1), 2)
    try:
        for network in networks.values():
            network.eval()
        with torch.no_grad():
            for chunk in _chunks(part[:most], rows):
                problem.forward(networks, rows.inputs[chunk])
                taken += len(chunk)
    finally:
        hook.remove()
        for name, network in networks.items():
            network.train(modes[name])
    if not captured or any(seen.ndim != 2 for seen in captured):
        return None
    seen = torch.cat(captured)
    return None if len(seen) != taken else seen.double().numpy()


def _chunks(part: Tensor, rows: Rows) -> Iterator[Tensor]:
    device = rows.target.device
    for start in range(0, len(part), 256):
        yield part[start : start + 256].to(device)


def _matrix(layer: nn.Linear) -> Array:
    return np.concatenate([_array(layer.weight), _array(layer.bias)[:, None]], axis=1)


def _array(tensor: Tensor) -> Array:
    array: Array = tensor.detach().cpu().double().numpy().copy()
    return array
