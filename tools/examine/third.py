"""How the files of the third sample register an input of it."""

from __future__ import annotations

from functools import partial

from tools.examine.case import case

third = partial(case, "third")
