"""A plug-in problem is tried with rows of zeros before anything is trained: does its output fit its loss and metrics?

A site calls it while it prepares. Built-in problems build networks of the width that they need.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from v6_algorithm.errors import ExperimentError
from v6_algorithm.experiment.problems import PROBLEMS
from v6_algorithm.learning.problems.base import Problem

_ROWS = 2  # BatchNorm, if a problem leaves it in training mode, needs more than one


def try_outputs(problem: Problem, networks: Mapping[str, nn.Module]) -> None:
    """Put rows of zeros through networks, loss, prediction and metrics.

    Parameters
    ----------
    problem
        Looked at where it is a plug-in that learns one class or number from numbers, series or images.
    networks
        Its networks; they are left as they are.

    Raises
    ------
    ExperimentError
        Saying which step did not go, and the shape that it was given.
    """
    experiment = problem.experiment
    targets = problem.targets(experiment)
    kind = experiment.problem.kind
    rows_of_own = getattr(experiment.data, "rows", None) is not None
    if kind in PROBLEMS or problem.generative or problem.joint or len(targets) != 1 or rows_of_own:
        return
    shape = shape_of_row(problem)
    first = next((parameter for network in networks.values() for parameter in network.parameters()), None)
    zeros = torch.zeros(_ROWS, *shape, dtype=getattr(torch, experiment.training.dtype))
    target = torch.zeros(_ROWS, dtype=torch.int64 if targets[0].kind == "class" else zeros.dtype)
    if first is not None:
        zeros, target = zeros.to(first.device), target.to(first.device)
    modes = {network: network.training for network in networks.values()}
    step, given = "its networks do not take inputs", tuple(zeros.shape)
    try:
        with torch.no_grad():
            for network in modes:
                network.eval()
            output = problem.forward(networks, zeros)
            step, given = "row_loss does not take an output", tuple(output.shape)
            loss = problem.row_loss(output, target, 0)
            if tuple(loss.shape) != (_ROWS,):
                raise ValueError(f"it gives {_written(tuple(loss.shape))}, one loss a row is needed")
            step = "its metrics do not take the prediction of an output"
            prediction = problem.prediction(output)
            problem.accumulator().update(
                prediction.double().cpu().numpy(), target.cpu().numpy(), loss.double().cpu().numpy()
            )
    except (RuntimeError, ValueError, TypeError, IndexError, KeyError, AttributeError) as error:
        said = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ExperimentError(f"problem {kind}: {step} of shape {_written(given)}: {said}") from None
    finally:
        for network, training in modes.items():
            network.train(training)


def shape_of_row(problem: Problem) -> list[int]:
    """Return the shape of one row's inputs."""
    setup = problem.setup
    if setup.image_shape is not None:
        return list(setup.image_shape)
    if problem.experiment.data.sequence is not None:
        return [setup.sequence_length or 1, len(setup.features)]
    return [len(setup.inputs)]


def _written(shape: tuple[int, ...]) -> str:
    return f"({', '.join(['rows', *map(str, shape[1:])])})" if shape else "one number"
