"""What a finished (or stopped) run leaves behind: files, a report page and a closing table. Called by the CLI only."""

from v6_algorithm.researcher.report.artifacts import PartlyWrittenError, write_artifacts
from v6_algorithm.researcher.report.coefficients import terminal_table as coefficients_table
from v6_algorithm.researcher.report.groups import gap_lines
from v6_algorithm.researcher.report.page import render
from v6_algorithm.researcher.report.recalibration import comparison_lines, recalibration_lines
from v6_algorithm.researcher.report.table import central_table, closing_table

__all__ = [
    "PartlyWrittenError",
    "central_table",
    "closing_table",
    "coefficients_table",
    "comparison_lines",
    "gap_lines",
    "recalibration_lines",
    "render",
    "write_artifacts",
]
