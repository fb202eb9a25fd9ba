"""Imports the samples, which register their inputs."""

from tools.examine import first_columns, first_reading, first_sites, second  # noqa: F401
