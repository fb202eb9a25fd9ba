"""Imports the samples, which register their inputs."""

from tools.examine import (  # noqa: F401
    first_columns,
    first_reading,
    first_sites,
    fourth_books,
    fourth_cells,
    fourth_experiments,
    fourth_tables,
    second,
    third_cells,
    third_files,
    third_labels,
    third_times,
    third_types,
)
