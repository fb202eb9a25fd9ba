"""What a container of a vantage6 5 node has: its session's folder, with dataframes, and what we keep there.

`entry` asks it where the environment says that this is one. Only data extraction sees a node's database; `extraction`
leaves dataframes here, and the files that their cells name.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from v6_algorithm.data.sources import ASSUMED, FOLDER, TableSource
from v6_algorithm.errors import DataError, ExperimentError, SiteError

# Among a dataframe's `attrs`: a file in our folder that is read instead of the dataframe.
FILE = "v6_algorithm.file"
# What of the rules nobody can hold here: a site's container cannot ask HQ who sent a request, and has no folder that
# outlives its session.
UNAVAILABLE = ("request_chain", "require_ledger")
# In a request, the task of `master`: what a site keeps is kept for each by itself.
JOB = "job"
_OURS = "v6_algorithm"
_GROUPS, _WITHIN = ";", ","


def is_session(environment: Mapping[str, str] = os.environ) -> bool:
    """Say whether this process is a container of a vantage6 5 node: only those know what step they are."""
    return "FUNCTION_ACTION" in environment and "SESSION_FOLDER" in environment


def folder() -> Path:
    """Return the session's folder."""
    return Path(os.environ["SESSION_FOLDER"])


def our_folder() -> Path:
    """Return the folder of what we keep in a session."""
    return folder() / _OURS


def journal_place() -> Path | None:
    """Return the folder that outlives a central container; None elsewhere."""
    return our_folder() / "master" if is_session() and "CONTAINER_TOKEN" in os.environ else None


def split_job(request: Mapping[str, Any]) -> tuple[dict[str, Any], Path]:
    """Take the job out of a request; returns the rest, and the folder of what a site keeps for that job.

    Raises
    ------
    ExperimentError
        For a request without a job.
    """
    rest = dict(request)
    job = rest.pop(JOB, None)
    if type(job) is not int or job < 0:
        raise ExperimentError("request: names no job; task `master`, which writes the requests to the sites")
    return rest, our_folder() / f"job-{job}"


def source_of_session() -> TableSource:
    """Find the dataframe that the task asked for in its session.

    Raises
    ------
    DataError
        When the task names none or several, or one that is not `extract`'s and lacks its files.
    SiteError
        Of kind ``absent`` when this node's session does not have it.
    """
    text = os.environ.get("USER_REQUESTED_DATAFRAMES", "")
    names = [name for group in text.split(_GROUPS) for name in group.split(_WITHIN) if name]
    if len(names) != 1:
        raise DataError(
            f"the task must ask for one dataframe of its session; it asks for {len(names)}: "
            "databases=[{'type': 'dataframe', 'dataframe_id': …}]"
        )
    path = folder() / f"{names[0]}.parquet"
    if not path.is_file():
        raise SiteError(f"this node's session has no dataframe '{names[0]}'", "absent")
    import pyarrow.parquet as pq

    attributes = (pq.read_schema(path).pandas_metadata or {}).get("attributes") or {}
    places = {name: _of_ours(attributes.get(name)) for name in (FOLDER, FILE)}
    if (file := places[FILE]) is not None:
        return TableSource(str(file), "npz")
    assumed = attributes.get(ASSUMED)
    return TableSource(str(path), "parquet", base=places[FOLDER], assumed=dict(assumed) if assumed else {})


def _of_ours(name: Any) -> Path | None:
    """Find what `extract` has put beside a dataframe; names that leave our folder are refused."""
    if name is None:
        return None
    ours = our_folder().resolve()
    place = (ours / str(name)).resolve()
    if not place.is_relative_to(ours) or not place.exists():
        raise DataError("the dataframe names files that its session does not have; extract it again")
    return place
