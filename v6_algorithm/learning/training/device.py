"""Where a site computes, and how exactly: its GPU if it has one, in mixed precision or deterministically if asked."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from v6_algorithm.errors import SiteError
from v6_algorithm.experiment import Training

# cuBLAS is deterministic with a workspace of fixed size only. Torch looks for this variable once in a process, at the
# first product on a GPU, whether that is to be deterministic or not.
_CUBLAS = "CUBLAS_WORKSPACE_CONFIG"


@dataclass(frozen=True)
class Device:
    """A device and the precision of the training on it.

    Attributes
    ----------
    kind
        ``cpu`` or ``cuda``.
    name
        For the researcher, such as ``cuda (NVIDIA A100)``.
    mixed
        Whether networks compute in bfloat16 while they train; parameters, losses and evaluation never do.
    """

    kind: str = "cpu"
    name: str = "cpu"
    mixed: bool = False

    @classmethod
    def choose(cls, training: Training) -> Device:
        """Choose what the experiment asks for and this machine has.

        Mixed precision is left out where the device has none; the reply tells so.

        Raises
        ------
        SiteError
            Of kind ``request`` when CUDA is demanded and there is none.
        """
        mixed = training.precision == "mixed"
        if training.device != "cpu" and torch.cuda.is_available():
            os.environ.setdefault(_CUBLAS, ":4096:8")
            return cls("cuda", f"cuda ({torch.cuda.get_device_name()})", mixed and torch.cuda.is_bf16_supported())
        if training.device == "cuda":
            raise SiteError("training.device is cuda, and this site has no CUDA device; allowed: auto, cpu", "request")
        return cls(mixed=mixed)

    def to_json(self) -> dict[str, str]:
        """Return what a reply tells of it."""
        return {"name": self.name, "precision": "mixed" if self.mixed else "full"}

    def forward(self) -> AbstractContextManager[Any]:
        """Return the context in which networks are called while they train."""
        return torch.autocast(self.kind, dtype=torch.bfloat16) if self.mixed else nullcontext()

    def full(self, output: Any) -> Any:
        """Return a network's output (a tensor, or several by name) in full precision, for the loss."""
        if not self.mixed:
            return output
        if isinstance(output, Mapping):
            return {name: self.full(value) for name, value in output.items()}
        return output.float() if isinstance(output, Tensor) else output

    def seed(self, seed: int) -> None:
        """Seed torch's global generators; of those of GPUs, which write the stack down each time, not on a CPU."""
        if self.kind == "cpu":
            torch.default_generator.manual_seed(seed)
        else:
            torch.manual_seed(seed)

    def fork_rng(self) -> AbstractContextManager[Any]:
        """Return a context after which torch's global generators, this device's included, are as they were."""
        return torch.random.fork_rng(devices=[torch.cuda.current_device()] if self.kind == "cuda" else [])


@contextmanager
def deterministic(wanted: bool) -> Iterator[None]:
    """Let torch use algorithms only that give the same bits each time, and set back what was set.

    Raises
    ------
    SiteError
        Of kind ``request`` when the model needs an operation that has no such algorithm.
    """
    if not wanted:
        yield
        return
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(True)
    try:
        yield
    except RuntimeError as error:
        if "deterministic" not in str(error):
            raise
        if _CUBLAS in str(error):
            raise SiteError(
                f"training.deterministic is true, and this process used its GPU before {_CUBLAS} was set; set it to "
                ":4096:8 before the process begins",
                "request",
            ) from None
        raise SiteError(
            "training.deterministic is true, and the model needs an operation that is not deterministic on this device",
            "request",
        ) from None
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        torch.backends.cudnn.benchmark = benchmark
