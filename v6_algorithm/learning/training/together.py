"""Many sites' local training as one batched computation, for a machine that simulates them all.

Each parameter of the network becomes a stack, one layer a site; a step gathers the sites' batches, multiplies them in
one batched product, and lets one optimiser of torch move the whole stack, which is what it does to each number by
itself. Seeds, batches and formulas are those of `loop.train`; only the order of additions inside a product differs, so
results are equal to float32 rounding (tests: 1e-5 after three rounds), not bit for bit. Sites of uneven sizes are
padded to the longest batch of a step with rows that weigh nothing, and leave the stack after their last step.

`site.together` asks `reason_against` first, and trains one by one where there is a reason.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from v6_algorithm.experiment import Training
from v6_algorithm.learning.problems.base import Problem
from v6_algorithm.learning.training.cross_entropy import formula_of
from v6_algorithm.learning.training.learner import TrainingContext, optimiser_of
from v6_algorithm.learning.training.loop import fewest_rows, steps_of
from v6_algorithm.learning.training.objectives import LocalObjective, OneGradient
from v6_algorithm.learning.training.stacked_layers import STATISTICS, batch_norm, linear
from v6_algorithm.learning.training.stacked_objectives import StackedContrast, StackedCorrections

# What these optimisers of torch do to a number depends on its own gradients alone, so a stack is moved as its layers.
_BY_NUMBER = ("sgd", "adam", "adamw", "rmsprop", "adagrad", "adadelta", "adamax", "nadam", "radam")
_ACTIVATIONS = (nn.ReLU, nn.GELU, nn.Tanh, nn.ELU, nn.SiLU, nn.Identity)
# Multiplications of a site's batch from which a step takes so long that nothing is won by doing several at once.
_LARGE = 5_000_000
# Numbers in a stack of all parameters: few enough to stay in a processor's cache from one step to the next.
_STACK_NUMBERS = 2_000_000


@dataclass(frozen=True)
class SiteRows:
    """One site's part in a batched training.

    Attributes
    ----------
    start, rows
        Which of the joined rows are its training rows: the first one's number, and how many there are.
    site, seed
        Whose training it is, and with what its batches are drawn.
    objective
        What the strategy asks of it.
    """

    start: int
    rows: int
    site: str
    seed: int
    objective: LocalObjective


@dataclass
class StackedTraining:
    """What training in stacks came to, by site.

    Attributes
    ----------
    losses
        Summed loss over the rows seen; of a site whose training left the finite numbers not finite.
    seen, steps
        How many rows, and optimiser steps.
    stacks
        Tensors by name, (sites, …), and the number of the site that each layer is of.
    """

    losses: list[float]
    seen: list[int]
    steps: list[int]
    stacks: list[tuple[dict[str, Tensor], list[int]]]


def reason_against(problem: Problem, networks: Mapping[str, nn.Module], training: Training) -> str | None:
    """Say why these networks are trained site by site; None where they need not be."""
    if not type(problem).__module__.startswith("v6_algorithm."):
        return f"problem {problem.experiment.problem.kind} is a plug-in"
    if problem.sums_of_squares:
        return f"model {problem.experiment.model.kind} is fitted by sums, which each site adds up by itself"
    if problem.joint and type(problem).losses_of_sites is Problem.losses_of_sites:
        return "the loss of a row depends on the rows beside it"
    if problem.joint and training.optimizer.kind.lower() != "sgd":
        # Cox's does not depend on the last bias, whose gradient is what is left of rounding.
        return f"optimizer {training.optimizer.kind} makes whole steps of rounding, with a loss by differences of rows"
    if problem.generative or set(networks) != {"model"}:
        return f"problem {problem.experiment.problem.kind} trains networks in steps of its own"
    if any(_has_hooks(module) for module in networks["model"].modules()):
        return "the network has hooks"
    before: nn.Module | None = None
    for _, layer in _layers(networks["model"]):
        # A class that is derived from one of these may do something else.
        if type(layer) not in (nn.Linear, nn.LayerNorm, nn.BatchNorm1d, nn.Dropout, *_ACTIVATIONS):
            return f"layer {type(layer).__name__} has no batched form here"
        if isinstance(layer, nn.BatchNorm1d):
            if not (layer.affine and layer.track_running_stats and layer.momentum is not None):
                return "a BatchNorm without weights or moving averages has no batched form here"
            if getattr(before, "bias", None) is not None and training.optimizer.kind.lower() != "sgd":
                # BatchNorm takes it away, so that its gradient is what is left of rounding.
                return f"optimizer {training.optimizer.kind} makes whole steps of rounding, of a bias before BatchNorm"
        before = layer
        if isinstance(layer, nn.LayerNorm) and not (layer.elementwise_affine and len(layer.normalized_shape) == 1):
            return "a LayerNorm without weights, or of several axes, has no batched form here"
    if problem.experiment.strategy.kind == "moon" and problem.head(networks) is not _layers(networks["model"])[-1][1]:
        return "strategy moon compares features, which are not what enters the last layer"
    if training.augmentation:
        return "training.augmentation changes images batch by batch"
    if training.accumulate > 1:
        return "training.accumulate takes several batches a step"
    if training.optimizer.kind.lower() not in _BY_NUMBER:
        return f"optimizer {training.optimizer.kind} does not move each number by itself"
    if training.precision == "mixed":
        return "training.precision is mixed"
    if is_large(networks, training):
        weights = sum(parameter.numel() for parameter in networks["model"].parameters())
        return f"a batch of this network ({weights} weights) is work enough for a step by itself"
    return None


def _has_hooks(module: nn.Module) -> bool:
    """Say whether something is called beside the forward of a module, which a batched form would leave out."""
    return any(
        getattr(module, name)
        for name in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    )


def is_large(networks: Mapping[str, nn.Module], training: Training) -> bool:
    """Say whether a step of one site takes so long that nothing is won by doing several at once."""
    weights = sum(parameter.numel() for network in networks.values() for parameter in network.parameters())
    return weights * (training.batch_size or 1) > _LARGE


def train_together(
    problem: Problem,
    networks: Mapping[str, nn.Module],
    received: Mapping[str, Tensor],
    inputs: Tensor,
    target: Tensor,
    sites: Sequence[SiteRows],
    context: TrainingContext,
    *,
    epochs: int | None = None,
) -> StackedTraining:
    """Train the same network from the same start at each of several sites.

    Parameters
    ----------
    problem, networks
        What is trained, for which `reason_against` knew no reason; the networks stay as they are.
    received
        ``model.tensor`` of the start, all of them.
    inputs, target
        (n, features) and (n, …): the training rows of all sites.
    sites
        Which of them are each site's.
    context
        When, what and how, the same for all but for site and seed.
    epochs
        Passes over the rows, instead of what the experiment says.

    Returns
    -------
    StackedTraining
        In the order of `sites`.
    """
    training = problem.experiment.training
    plans = _plans(sites, training, epochs, context, fewest_rows(networks))
    # Those with the same number of steps beside each other: a stack is as long as its longest.
    order = sorted(range(len(sites)), key=lambda index: (-len(plans[index]), -len(plans[index][0])))
    numbers = max(sum(tensor.numel() for tensor in received.values()), 1)
    size = max(_STACK_NUMBERS // numbers, 1)
    losses, seen, steps = [0.0] * len(sites), [0] * len(sites), [0] * len(sites)
    stacks = []
    for start in range(0, len(order), size):
        chosen = order[start : start + size]
        of_stack = [sites[index] for index in chosen]
        stack = _Stack(problem, networks["model"], received, inputs, target, of_stack, context)
        lengths = [[len(batch) for batch in plans[index]] for index in chosen]
        for index, loss, of_site in zip(
            chosen, stack.train([plans[index] for index in chosen], lengths), lengths, strict=True
        ):
            losses[index], seen[index], steps[index] = loss, sum(of_site), len(of_site)
        stacks += [(tensors, chosen[place]) for tensors, place in stack.finished]
    return StackedTraining(losses, seen, steps, stacks)


def _plans(
    sites: Sequence[SiteRows], training: Training, epochs: int | None, context: TrainingContext, least: int
) -> list[list[Tensor]]:
    """Return each site's batches, of row numbers from 0, one a step."""
    plans, in_order = [], {}
    for site in sites:
        shuffled = training.batch_size is not None and training.batch_size < site.rows
        if shuffled or site.rows not in in_order:
            # Of a site whose rows are one batch nothing is drawn, and others of so many rows have the same.
            generator = replace(context, site=site.site, seed=site.seed).generator("batches")
            plan = [batch for (batch,) in steps_of(site.rows, training, generator, least, epochs, context.round)]
            if not shuffled:
                in_order[site.rows] = plan
        else:
            plan = in_order[site.rows]
        plans.append(plan)
    return plans


class _Stack:
    """Some sites whose parameters are trained as stacks, sorted by falling number of steps."""

    def __init__(
        self,
        problem: Problem,
        network: nn.Module,
        received: Mapping[str, Tensor],
        inputs: Tensor,
        target: Tensor,
        sites: Sequence[SiteRows],
        context: TrainingContext,
    ) -> None:
        self._problem, self._layers, self._fold, frozen = problem, _layers(network), context.fold, context.frozen
        self._received, self._inputs, self._target = received, inputs, target
        self._starts = torch.tensor([site.start for site in sites])[:, None]
        # Statistics of BatchNorm among them, which no gradient moves.
        held = {*frozen, *(f"model.{name}" for name, _ in network.named_buffers())}
        self._parameters = {
            name: nn.Parameter(tensor.expand(len(sites), *tensor.shape).clone(), requires_grad=name not in held)
            for name, tensor in received.items()
        }
        # BatchNorm that gathers no statistics: see `freezing.in_training`.
        self._frozen = frozen
        self._optimiser = optimiser_of(problem.experiment.training, self._trained(), context)
        self._plain = is_plain([layer for _, layer in self._layers])
        self._formula = formula_of(problem) if self._plain else None
        # The first layer that is trained: below it nobody asks for slopes.
        self._first_trained = next(
            (
                place
                for place, (path, _) in enumerate(self._layers)
                if any(name.startswith(f"{path}.") and name not in frozen for name in self._parameters)
            ),
            len(self._layers),
        )
        self._terms = StackedCorrections([site.objective for site in sites], received)
        # The parameters in whose place gradients are sent, and no step is taken; nobody else's sites are beside them.
        first = sites[0].objective
        self._contrast = StackedContrast([site.objective for site in sites], received)
        self._plain = self._plain and not self._contrast.is_asked
        # What dropout at each site draws from, where there is any.
        drops = any(isinstance(layer, nn.Dropout) for _, layer in self._layers)
        self._draws = [
            torch.Generator().manual_seed(replace(context, site=site.site, seed=site.seed).derive("training"))
            for site in (sites if drops else ())
        ]
        self._sent_as_gradients = first.names if isinstance(first, OneGradient) else None
        # Tensors of those sites that have taken their last step, and which sites these are; and whether each is finite.
        self.finished: list[tuple[dict[str, Tensor], slice]] = []
        self._finite = [False] * len(sites)

    def train(self, plans: Sequence[list[Tensor]], lengths: Sequence[list[int]]) -> list[float]:
        """Take all steps, and return each site's summed loss.

        `plans` are each site's batches, of row numbers, one a step, and `lengths` how many these are.
        """
        losses = torch.zeros(len(plans), dtype=torch.float64, device=self._inputs.device)
        places, parts = self._laid_out(plans, lengths)
        active = len(plans)
        for number in range(len(plans[0])):
            staying = active
            while len(lengths[staying - 1]) <= number:
                staying -= 1
            if staying < active:
                self._leave(staying, active)
                active = staying
            of_step = [of_site[number] for of_site in lengths[:active]]
            longest = max(of_step)
            rows = self._step(
                places[:active, number, :longest], parts[:active, number, :longest], of_step, first=number == 0
            )
            losses[:active] += rows.sum(1)
        self._leave(0, active)
        return [loss if finite else math.nan for loss, finite in zip(losses.tolist(), self._finite, strict=True)]

    def _laid_out(self, plans: Sequence[list[Tensor]], lengths: Sequence[list[int]]) -> tuple[Tensor, Tensor]:
        """Return (sites, steps, rows): places of the joined rows, and each row's part in the sum of the sites' means.

        Where a site has fewer rows or steps there are places that weigh nothing.
        """
        steps = len(lengths[0])
        counts = torch.tensor([[*of_site, *[0] * (steps - len(of_site))] for of_site in lengths])[:, :, None]
        filled = torch.arange(max(max(of_site) for of_site in lengths)) < counts
        places = torch.zeros(filled.shape, dtype=torch.long)
        places[filled] = torch.cat([batch for plan in plans for batch in plan])
        places += self._starts[:, :, None]
        parts = torch.where(filled, 1.0 / counts, 0.0)
        device = self._inputs.device
        return places.to(device), parts.to(device=device, dtype=self._inputs.dtype)

    def _trained(self) -> list[nn.Parameter]:
        return [parameter for parameter in self._parameters.values() if parameter.requires_grad]

    def _step(self, places: Tensor, parts: Tensor, lengths: Sequence[int], *, first: bool) -> Tensor:
        """Take one step of the first sites, of the rows at these places; return the rows' losses, (sites, rows).

        `lengths` are the sites' numbers of rows, what is beyond fills up; `first` says that nobody has stepped yet, so
        that all sites' parameters are those received.
        """
        even = min(lengths) == max(lengths)
        chosen = places.reshape(-1)
        inputs = self._inputs.index_select(0, chosen).view(*places.shape, *self._inputs.shape[1:])
        target = self._target.index_select(0, chosen)

        def losses(output: Tensor) -> Tensor:
            of_sites = target.view(*places.shape, *target.shape[1:])
            rows = self._problem.losses_of_sites(output, of_sites, parts > 0, self._fold)
            return rows if even else torch.where(parts > 0, rows, 0.0)

        def slopes(output: Tensor) -> tuple[Tensor, Tensor]:
            if self._formula is None:
                rows = losses(output.requires_grad_())
                # Of one number: torch imports an algebra system for slopes that are given.
                (slope,) = torch.autograd.grad((rows * parts).sum(), output)
                return rows.detach(), slope
            flat, slope = self._formula(output.flatten(0, 1), target, parts.reshape(-1, 1))
            rows = flat.view(places.shape)
            return rows if even else torch.where(parts > 0, rows, 0.0), slope.view(output.shape)

        if self._plain:
            rows = self._gradients(inputs, slopes, self._received if first else self._parameters)
        else:
            features = self._through(self._layers[:-1], inputs, self._parameters, lengths, parts)
            rows = losses(self._through(self._layers[-1:], features, self._parameters, lengths, parts))
            weighted = rows * parts
            if self._contrast.is_asked:
                with torch.no_grad():
                    received, own = (
                        self._through(self._layers[:-1], inputs, values) for values in self._contrast.models(len(parts))
                    )
                weighted = weighted + self._contrast.losses(features, received, own) * parts
            self._optimiser.zero_grad(set_to_none=True)
            weighted.sum().backward()
        self._terms.add(self._parameters)
        if self._sent_as_gradients is None:
            self._optimiser.step()
        return rows.detach()

    def _gradients(
        self,
        inputs: Tensor,
        slopes: Callable[[Tensor], tuple[Tensor, Tensor]],
        values_of: Mapping[str, Tensor],
    ) -> Tensor:
        """Leave the gradients of a plain network in the memory of those before; return the rows' losses.

        It is what autograd does for such a network; layer by layer it costs neither a graph nor new memory. `slopes`
        gives for an output the rows' losses and the slope of their weighted sum. `values_of` are the parameters by
        name: a stack, or what all sites have, of which a product with all sites' rows at once is the faster.
        """
        values, entering = inputs, []
        with torch.no_grad():
            for path, layer in self._layers:
                entering.append(values)
                if isinstance(layer, nn.Linear):
                    values = linear(values, values_of[f"{path}.weight"], values_of.get(f"{path}.bias"))
                else:
                    # Of the product before, which nobody needs as it was.
                    values = values.relu_()
        rows, slope = slopes(values)
        with torch.no_grad():
            for place in range(len(self._layers) - 1, -1, -1):
                path, layer = self._layers[place]
                if isinstance(layer, nn.ReLU):
                    # What entered the layer was overwritten by what left it, which is above 0 at the same places.
                    slope = torch.ops.aten.threshold_backward(slope, entering[place], 0)
                    continue
                weight, bias = self._parameters[f"{path}.weight"], self._parameters.get(f"{path}.bias")
                if weight.requires_grad:
                    torch.bmm(slope.transpose(1, 2), entering[place], out=_gradient(weight))
                if bias is not None and bias.requires_grad:
                    torch.sum(slope, 1, out=_gradient(bias))
                if place <= self._first_trained:
                    break
                slope = slope @ values_of[f"{path}.weight"]
        return rows

    def _through(
        self,
        layers: Sequence[tuple[str, nn.Module]],
        values: Tensor,
        parameters: Mapping[str, Tensor],
        lengths: Sequence[int] | None = None,
        parts: Tensor | None = None,
    ) -> Tensor:
        """Return what comes out of some layers, (sites, rows, …), by stacks of parameters.

        `lengths` are the sites' numbers of rows, for which dropout draws, and `parts` (sites, rows) each row's part in
        its batch, with which BatchNorm gathers statistics; without them layers do what they do to measure a model.
        """
        for path, layer in layers:
            weight, bias = (parameters.get(f"{path}.{name}") for name in ("weight", "bias"))
            if isinstance(layer, nn.Linear) and weight is not None:
                values = linear(values, weight, bias)
            elif isinstance(layer, nn.LayerNorm) and weight is not None:
                values = functional.layer_norm(values, layer.normalized_shape, eps=layer.eps) * weight.unsqueeze(1)
                values = values if bias is None else values + bias.unsqueeze(1)
            elif isinstance(layer, nn.BatchNorm1d):
                gathers = lengths is not None and not any(f"{path}.{name}" in self._frozen for name in STATISTICS)
                values = batch_norm(layer, path, values, parameters, parts if gathers else None)
            elif isinstance(layer, nn.Dropout):
                values = values if lengths is None else values * self._kept(layer.p, values, lengths)
            else:
                values = layer(values)
        return values

    def _kept(self, p: float, values: Tensor, lengths: Sequence[int]) -> Tensor:
        """Return by what dropout multiplies: each site draws for its rows what it would draw by itself."""
        kept = torch.zeros_like(values, requires_grad=False)
        for rows, length, generator in zip(kept, lengths, self._draws, strict=False):
            if p < 1:
                rows[:length].bernoulli_(1 - p, generator=generator).div_(1 - p)
        return kept

    def _leave(self, staying: int, active: int) -> None:
        """Let the sites from number `staying` on be done, and the stacks be those of the others."""
        tensors = {name: parameter.detach() for name, parameter in self._parameters.items()}
        for name in self._sent_as_gradients or ():
            gradient = self._parameters[name].grad
            tensors[name] = torch.zeros_like(tensors[name]) if gradient is None else gradient
        finite = torch.stack([_finite(tensor[staying:active]) for tensor in tensors.values()]).all(0).tolist()
        self._finite[staying:active] = finite
        # Layers of the old stacks, which nobody steps any more.
        leaving = slice(staying, active)
        self.finished.append(({name: tensor[leaving] for name, tensor in tensors.items()}, leaving))
        if not staying:
            return
        shorter: dict[nn.Parameter, nn.Parameter] = {}
        for name, parameter in self._parameters.items():
            cut = nn.Parameter(parameter.detach()[:staying].clone(), requires_grad=parameter.requires_grad)
            if self._plain and parameter.grad is not None:
                cut.grad = parameter.grad[:staying]
            shorter[parameter] = self._parameters[name] = cut
        for group in self._optimiser.param_groups:
            group["params"] = [shorter[parameter] for parameter in group["params"]]
        for longer, cut in shorter.items():
            # What an optimiser knows of each number has the parameter's shape; the rest is of all alike.
            self._optimiser.state[cut] = {
                key: value[:staying].clone() if isinstance(value, Tensor) and value.shape == longer.shape else value
                for key, value in self._optimiser.state.pop(longer, {}).items()
            }
        self._terms.cut(staying)


def is_plain(layers: Sequence[nn.Module]) -> bool:
    """Say whether a network is linear layers with at most a ReLU between two, and at least one."""
    before: nn.Module | None = None
    for layer in layers:
        if not (isinstance(layer, nn.Linear) or (isinstance(layer, nn.ReLU) and isinstance(before, nn.Linear))):
            return False
        before = layer
    return isinstance(before, nn.Linear)


def _gradient(parameter: nn.Parameter) -> Tensor:
    """Return the memory of a parameter's gradient, made when it is first asked for."""
    if parameter.grad is None:
        parameter.grad = torch.empty_like(parameter)
    return parameter.grad


def _finite(stack: Tensor) -> Tensor:
    """Say of each layer whether all its numbers are finite; a sum that is finite says so faster."""
    rows = stack.reshape(len(stack), -1)
    sums = rows.sum(1).isfinite()
    return sums if sums.all() else rows.isfinite().all(1)


def _layers(network: nn.Module, path: str = "model") -> list[tuple[str, nn.Module]]:
    """Return the layers that a batch goes through one after the other, with the names of `state_of`."""
    if type(network) is nn.Identity or (type(network) is nn.Dropout and not network.p):
        return []
    if type(network) is not nn.Sequential:
        return [(path, network)]
    return [layer for name, child in network.named_children() for layer in _layers(child, f"{path}.{name}")]
