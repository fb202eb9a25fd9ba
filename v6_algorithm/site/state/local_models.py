"""What a run leaves of a model at a hospital, for its own use: private layers and personal models.

They never travel. Where the node's owner names a folder (`V6_ALGORITHM_MODEL_FOLDER`), the final test of a run writes
them there; with the run's model file `v6-algorithm predict RUN new.csv --layers FILE` uses them. `run` keeps those of
its sites in its own folder.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from v6_algorithm.data.cache import write_whole
from v6_algorithm.data.files import cache_key
from v6_algorithm.site.rules import BY_FIELD
from v6_algorithm.site.work import Work

if TYPE_CHECKING:
    from torch import Tensor

PRIVATE, PERSONAL = "private", "personal"
# Of a file's metadata: which of the two it holds.
MARK = "v6_algorithm_layers"


def keep(work: Work, fold: int, kind: str, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors of a fold's final test, as they were measured; a disk that refuses costs the run nothing,
    and is named in the node's log.

    Parameters
    ----------
    work
        The request; its policy says where to.
    fold
        The fold's number.
    kind
        ``private``: the layers that stay here; ``personal``: the whole model that was trained on here.
    tensors
        By name, as in the run's model file.
    """
    if work.policy.model_folder is None:
        return
    run = cache_key("model", work.experiment.model_dump(mode="json"))[:12]
    # A site may be called anything.
    name = f"{_slug(work.site)}-{cache_key(work.site)[:6]}-fold-{fold}-{kind}.safetensors"
    folder = Path(work.policy.model_folder) / f"{_slug(work.experiment.name)}-{run}"
    about = {MARK: kind, "site": work.site, "fold": str(fold), "round": str(work.round)}

    def write(path: Path) -> None:
        import safetensors
        import safetensors.torch

        try:
            safetensors.torch.save_file({n: t.detach().cpu().contiguous() for n, t in tensors.items()}, path, about)
        except safetensors.SafetensorError as error:
            raise OSError(str(error)) from None

    if write_whole(folder, name, write):
        _give(Path(work.policy.model_folder), folder, folder / name)
    else:
        print(
            f"note: what stays here of the model of fold {fold} ({kind}) could not be kept in {folder} "
            f"({BY_FIELD['model_folder'].variable})",
            file=sys.stderr,
            flush=True,
        )


def _give(owner: Path, *written: Path) -> None:
    """Let what a container wrote as root belong to whom the folder belongs, who has to be able to read it."""
    # Who is not root has written as himself, and Windows has no such owners.
    with suppress(OSError, AttributeError):
        about = owner.stat()
        for path in written:
            os.chown(path, about.st_uid, about.st_gid)


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "-", text)[:60] or "site"
