"""`v6_algorithm.learning.problems.base`, under the name that plug-ins import."""

from v6_algorithm.learning.problems.base import *  # noqa: F403
