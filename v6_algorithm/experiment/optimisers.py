"""torch optimisers and schedulers by name: found, and their options tried, before any site is asked.

`experiment` calls `check_*` while it validates; `training` calls `build_*`. One table of names serves both.
"""

from __future__ import annotations

import difflib
import functools
import inspect
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import torch

# LBFGS needs a closure, SparseAdam sparse gradients, Muon matrices only: none of them fits the plain local loop.
_NOT_OPTIMISERS = {"Optimizer", "LBFGS", "SparseAdam", "Muon"}
# These take functions or other schedulers: nothing a YAML file can say.
_NOT_SCHEDULERS = {"LRScheduler", "_LRScheduler", "LambdaLR", "MultiplicativeLR", "SequentialLR", "ChainedScheduler"}
# The one scheduler that follows from a metric and not from the round.
PLATEAU = "reducelronplateau"
LARGEST = 3e38  # float32 ends at 3.4e38


def did_you_mean(given: str, allowed: Iterable[str], likeness: float = 0.6) -> str:
    """Return `` (did you mean 'x'?)`` for the closest allowed name that is so like it, of 1, or an empty string."""
    close = difflib.get_close_matches(given, list(allowed), n=1, cutoff=likeness)
    return f" (did you mean '{close[0]}'?)" if close else ""


@functools.cache
def optimisers() -> dict[str, type[torch.optim.Optimizer]]:
    """Optimisers by lower-case name, as ``{"adam": torch.optim.Adam, …}``."""
    import torch

    return _classes(torch.optim, torch.optim.Optimizer, _NOT_OPTIMISERS)


@functools.cache
def schedulers() -> dict[str, type[torch.optim.lr_scheduler.LRScheduler]]:
    """Learning-rate schedulers by lower-case name, as ``{"steplr": torch.optim.lr_scheduler.StepLR, …}``."""
    import torch

    return _classes(torch.optim.lr_scheduler, torch.optim.lr_scheduler.LRScheduler, _NOT_SCHEDULERS)


def build_optimiser(
    kind: str, options: dict[str, Any], parameters: Iterable[torch.nn.Parameter]
) -> torch.optim.Optimizer:
    """Build a torch optimiser; `options` are its keyword arguments.

    Raises
    ------
    ValueError
        If the name, an option or an option's value is not allowed; the message says what is.
    """
    return _build("optimizer", optimisers(), kind, list(parameters), options, _uncompiled)


def build_scheduler(
    kind: str, options: dict[str, Any], optimiser: torch.optim.Optimizer
) -> torch.optim.lr_scheduler.LRScheduler:
    """Build a torch learning-rate scheduler on `optimiser`; raises ValueError as `build_optimiser` does."""
    return _build("scheduler", schedulers(), kind, optimiser, options)


def wind(optimiser: torch.optim.Optimizer, kind: str, options: dict[str, Any], number: int) -> None:
    """Set an optimiser's learning rate (and what else a scheduler sets) to that of a round, counted from 1.

    Of ReduceLROnPlateau the round says nothing; see `rate_after`.
    """
    import warnings

    if kind.lower() == PLATEAU:
        return
    scheduler = build_scheduler(kind, options, optimiser)
    with warnings.catch_warnings():
        # torch warns that the optimiser did not step in between: it did, in the rounds before.
        warnings.simplefilter("ignore", UserWarning)
        for _ in range(number - 1):
            scheduler.step()


def group_in_round(
    kind: str,
    options: dict[str, Any],
    scheduler: tuple[str, dict[str, Any]] | None,
    number: int,
    lr: float | None = None,
) -> dict[str, Any]:
    """Return an optimiser's settings in a round, torch's defaults included; `scheduler` steps once a round.

    `lr` is the learning rate, where that is known already.
    """
    import torch

    optimiser = build_optimiser(kind, options, [torch.nn.Parameter(torch.zeros(1))])
    if scheduler:
        wind(optimiser, *scheduler, number)
    group = {name: value for name, value in optimiser.param_groups[0].items() if name != "params"}
    return group if lr is None else group | {"lr": lr}


def local_reach(training: Any, number: int, lr: float | None, steps: int) -> tuple[float, float]:
    """Return the local learning rate in a round, and how often a constant gradient counts in so many SGD steps.

    That is `steps`; with momentum β each gradient goes on in later steps: Σⱼ (1 − βʲ) / (1 − β) for j = 1, …, steps.
    `training` is the experiment's section, `lr` the rate where it is known already.
    """
    scheduler = (training.scheduler.kind, training.scheduler.options()) if training.scheduler else None
    group = group_in_round(training.optimizer.kind, training.optimizer.options(), scheduler, number, lr)
    beta = group["momentum"]
    reach = sum((1 - beta**count) / (1 - beta) for count in range(1, steps + 1)) if beta else steps
    return float(group["lr"]), float(reach)


def rate_after(
    kind: str, options: dict[str, Any], scheduler: tuple[str, dict[str, Any]], scores: Iterable[float]
) -> float:
    """Return the learning rate that torch's ReduceLROnPlateau leaves an optimiser after these scores, one a round."""
    import torch

    optimiser = build_optimiser(kind, options, [torch.nn.Parameter(torch.zeros(1))])
    plateau: Any = build_scheduler(*scheduler, optimiser)
    for score in scores:
        plateau.step(score)
    return float(optimiser.param_groups[0]["lr"])


def check_optimiser(kind: str, options: dict[str, Any]) -> None:
    """Raise ValueError unless torch accepts this optimiser with these options."""
    import torch

    _check_sizes("optimizer", options)
    build_optimiser(kind, options, [torch.nn.Parameter(torch.zeros(1))])


def _check_sizes(what: str, options: dict[str, Any]) -> None:
    """Raise ValueError for a number that no float32 holds, at which torch stops in the middle of a step."""
    for name, value in options.items():
        for number in value if isinstance(value, (list, tuple)) else [value]:
            if isinstance(number, (int, float)) and abs(number) > LARGEST:
                raise ValueError(f"{what} {name}: a number larger than {LARGEST:g}, which no float32 holds")


def check_scheduler(kind: str, options: dict[str, Any]) -> None:
    """Raise ValueError unless torch accepts this scheduler with these options."""
    import torch

    _check_sizes("scheduler", options)
    # Momentum, because the cyclic schedules insist on having one to change.
    build_scheduler(kind, options, torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1, momentum=0.9))


@functools.cache
def _uncompiled(cls: type[torch.optim.Optimizer]) -> type[torch.optim.Optimizer]:
    """Return an optimiser's class without the decorators that are for `torch.compile`, which nothing here uses.

    They import the compiler, which takes longer than many a round's training. What they wrap is reached by Python's
    own `__wrapped__`; where a version of torch wraps nothing, nothing changes. The step's decorator also switches
    gradients off, so that is done here.
    """
    import torch

    methods = {name: inspect.unwrap(getattr(cls, name)) for name in ("add_param_group", "zero_grad")}
    step = torch.no_grad()(inspect.unwrap(cls.step))
    return type(cls.__name__, (cls,), {"__module__": cls.__module__, **methods, "step": step})


def _classes(module: Any, base: type, without: set[str]) -> dict[str, Any]:
    return {
        name.lower(): value
        for name, value in vars(module).items()
        if inspect.isclass(value) and issubclass(value, base) and name not in without
    }


def _build(
    what: str,
    table: dict[str, Any],
    kind: str,
    first: Any,
    options: dict[str, Any],
    made_of: Callable[[Any], Any] = lambda cls: cls,
) -> Any:
    cls = table.get(kind.lower())
    if cls is None:
        raise ValueError(
            f"unknown {what} '{kind}'{did_you_mean(kind.lower(), table)}; allowed: {', '.join(sorted(table))}"
        )
    allowed = [name for name in inspect.signature(cls).parameters if name not in {"params", "optimizer"}]
    for name in options:
        if name not in allowed:
            raise ValueError(
                f"unknown option '{name}'{did_you_mean(name, allowed)} of {cls.__name__}; allowed: {', '.join(allowed)}"
            )
    try:
        return made_of(cls)(first, **options)
    except Exception as error:  # torch says no with whatever its own checks stumble over
        given = ", ".join(f"{name}={value!r}" for name, value in options.items())
        raise ValueError(f"{cls.__name__}({given}): {error}") from None
