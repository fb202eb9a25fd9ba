"""What the files of the fourth sample share: its patients, and how an input of it is registered."""

from __future__ import annotations

from functools import partial

from tools.examine.case import case, right
from tools.examine.patients import logit_is, pooled, three

BASE = three(42)
ROWS = pooled(BASE)
FITS = right(logit_is(ROWS))
fourth = partial(case, "fourth")
