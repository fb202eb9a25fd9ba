"""A network of one's own: an installed plug-in's, or one that the Python API was given. Problems build it like theirs.

What makes it is a torch module, of which every use is a copy, or a function (a class is one) that is called with those
of ``inputs`` and ``outputs`` that it has parameters for, and with `model.options`.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from v6_algorithm.errors import ExperimentError
from v6_algorithm.experiment import plugins

_ROWS = 2  # of zeros, that a network is tried with: BatchNorm needs more than one


def build_own(name: str, options: dict[str, Any], shape: Sequence[int], outputs: int, *, classes: int = 0) -> nn.Module:
    """Build a network and see that it takes the inputs and gives the outputs that the problem needs.

    Parameters
    ----------
    name
        Of the plug-in.
    options
        Arguments of what makes the network.
    shape
        Of one row's input: ``[columns]``, ``[time, channels]`` or ``[channels, lengths …]``.
    outputs
        Numbers a row that the problem needs.
    classes
        Of a classification their number. For two classes one logit is needed; a network that gives two is taken as
        well: the softmax of two is the sigmoid of their difference.

    Returns
    -------
    nn.Module
        From (rows, *shape) to (rows, outputs).

    Raises
    ------
    ExperimentError
        When it is no network, does not take these inputs, or gives other outputs.
    """
    made = plugins.network(name)
    where = f"model module '{name}'"
    if isinstance(made, nn.Module):
        if options:
            raise ExperimentError(f"{where}: is a network that is made already, so model.options are not allowed")
        network: Any = copy.deepcopy(made)
    else:
        network = _call(made, where, options, shape, outputs)
    if not isinstance(network, nn.Module):
        raise ExperimentError(f"{where}: made a {type(network).__name__}; a torch.nn.Module is needed")
    if _try(network, where, shape, outputs, classes) != (outputs,):
        network.register_forward_hook(lambda module, given, output: _as_columns(output, outputs))
    return network


def _call(factory: Any, where: str, options: dict[str, Any], shape: Sequence[int], outputs: int) -> Any:
    if not callable(factory):
        raise ExperimentError(f"{where}: is a {type(factory).__name__}; a torch.nn.Module or what makes one is needed")
    # One number for tables and series, whose rows have columns or channels; all of them for images.
    inputs = {1: shape[0], 2: shape[-1]}.get(len(shape), list(shape))
    known = inspect.signature(factory).parameters
    given = {key: value for key, value in (("inputs", inputs), ("outputs", outputs)) if key in known} | options
    try:
        return factory(**given)
    except TypeError as error:
        raise ExperimentError(
            f"{where}: cannot be made with {', '.join(given) or 'no arguments'} ({error}); it may have the parameters "
            "inputs and outputs, and those that model.options names"
        ) from None


def _try(network: nn.Module, where: str, shape: Sequence[int], outputs: int, classes: int) -> tuple[int, ...]:
    """Put zeros through the network, and return the shape that a row gets; without memory where it was made so."""
    first = next(network.parameters(), None)
    if first is None:
        raise ExperimentError(f"{where}: has no parameters, so there is nothing to train")
    training = network.training
    zeros = torch.zeros(_ROWS, *shape, device=first.device, dtype=first.dtype)
    try:
        with torch.no_grad():
            output = network.eval()(zeros)
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        said = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ExperimentError(f"{where}: does not take inputs of shape (rows, {_written(shape)}): {said}") from None
    finally:
        network.train(training)
    allowed = {(outputs,), *([()] if outputs == 1 else []), *([(2,)] if classes == 2 else [])}
    if not isinstance(output, Tensor) or len(output) != _ROWS or tuple(output.shape[1:]) not in allowed:
        gives = f"(rows, {_written(output.shape[1:])})" if isinstance(output, Tensor) else type(output).__name__
        needs = f"(rows, {outputs})" + (" or (rows, 2), for two classes" if classes == 2 else "")
        raise ExperimentError(f"{where}: gives {gives}; needed: {needs}")
    return tuple(output.shape[1:])


def _as_columns(output: Tensor, outputs: int) -> Tensor:
    """Return (rows, outputs): of two logits for two classes their difference."""
    if output.ndim == 1:
        return output[:, None]
    return output[:, 1:] - output[:, :1] if output.shape[1] == 2 and outputs == 1 else output


def _written(shape: Sequence[int]) -> str:
    return ", ".join(map(str, shape))
