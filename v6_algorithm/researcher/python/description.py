"""What `api.describe` returns: the sites' tables described, as dataframes and files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from v6_algorithm.errors import ExperimentError

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Description:
    """A description of a federation's tables.

    Attributes
    ----------
    content
        See `v6_algorithm.coordinator.description.describe.describe`.
    """

    content: Mapping[str, Any]

    @property
    def notes(self) -> list[str]:
        """What the description wants to be known: what is left out, withheld or coarse."""
        return list(self.content["notes"])

    @property
    def table_one(self) -> pd.DataFrame:
        """Table 1 as text: a row for each variable, a column for each group; raises ExperimentError without `by`."""
        import pandas as pd

        from v6_algorithm.researcher.report.table_one import cells

        heads, rows = cells(self._by_group("table_one"))
        return pd.DataFrame(rows, columns=["variable", *heads[1:]]).set_index("variable")

    @property
    def curves(self) -> pd.DataFrame:
        """Kaplan-Meier curves: a row for each group and time; raises ExperimentError where there are none."""
        import pandas as pd

        from v6_algorithm.researcher.report.table_one import CURVES_HEADER, curve_rows

        return pd.DataFrame(curve_rows(self._by_group("curves")), columns=list(CURVES_HEADER))

    @property
    def cumulative_incidence(self) -> pd.DataFrame:
        """Aalen-Johansen curves: a row for each group, cause and time; raises ExperimentError without other causes."""
        import pandas as pd

        from v6_algorithm.researcher.report.table_one import INCIDENCE_HEADER, incidence_rows

        curves = self._by_group("curves")
        if not curves["causes"]:
            raise ExperimentError(
                "the description has no cumulative incidence: data.target.competing names other causes"
            )
        return pd.DataFrame(incidence_rows(curves), columns=list(INCIDENCE_HEADER))

    @property
    def correlations(self) -> pd.DataFrame:
        """A row for each pair of columns: rows with both, r, its 95 % interval and p; empty where a site told none."""
        import io

        import pandas as pd

        from v6_algorithm.researcher.report.summary import correlations_csv

        known = self.content.get("correlations")
        nothing: Mapping[str, Any] = {"columns": []}
        return pd.read_csv(io.StringIO(correlations_csv(known or nothing)))

    def save(self, folder: str | Path) -> Path:
        """Write summary.json, summary.csv and, by group, Table 1 and the curves; returns the folder."""
        from v6_algorithm.researcher.report.summary import write_summary

        write_summary(self.content, Path(folder))
        return Path(folder)

    def _by_group(self, name: str) -> Mapping[str, Any]:
        known = self.content.get(name)
        if not known:
            needs = "by, a column or site" if name == "table_one" else "by, and a target of duration and event"
            raise ExperimentError(f"the description has no {name}; describe needs {needs}")
        return known
