"""From an experiment's `sites` to a federation on this machine; used by `v6-algorithm run` and `validate`."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from dataclasses import replace
from itertools import takewhile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from v6_algorithm import seeding
from v6_algorithm.data.names import named
from v6_algorithm.data.sources import ASSUMED, FOLDER, STATE, TableSource, source_in
from v6_algorithm.engines.simulation.local import LocalFederation, Way
from v6_algorithm.errors import DataError, ExperimentError, PolicyError
from v6_algorithm.experiment import Experiment, PartitionedSource, Source
from v6_algorithm.experiment.reading import meant
from v6_algorithm.experiment.table_form import TableForm
from v6_algorithm.site import SiteContext
from v6_algorithm.site.guard.queries import guarded_source
from v6_algorithm.site.policy import Policy
from v6_algorithm.site.rules import PRESET

if TYPE_CHECKING:
    from v6_algorithm.engines.simulation.workers import WorkerFederation
    from v6_algorithm.engines.vantage6.v4 import Vantage6Federation

# The one site of a centralised run, which holds the rows of all hospitals.
POOLED = "pooled"


def tables_of(experiment: Experiment, folder: Path, *, experiment_file: Path | None = None) -> dict[str, TableSource]:
    """Find each site's table.

    Parameters
    ----------
    experiment
        Its `sites` say what to look for.
    folder
        What file names are relative to: the folder of the experiment file.
    experiment_file
        Where a site's file is missing, the comment on top of this one is quoted: it may say where to get it.

    Raises
    ------
    ExperimentError
        When the experiment names no sites, or files that are not there: all of those.
    """
    sites = experiment.sites
    if sites is None:
        raise ExperimentError("sites: is required to run here; name each site's file, or a source and its partition")
    if isinstance(sites, PartitionedSource):
        return _partitioned(sites, experiment, folder)
    tables, wrong = {}, []
    for name, source in sites.items():
        try:
            tables[name] = source_of(f"sites.{name}", source, folder, experiment)
        except ExperimentError as error:
            wrong.append(str(error))
    if wrong:
        raise ExperimentError("\n".join([*wrong, *_opening_comment(experiment_file)]))
    return tables


def _opening_comment(file: Path | None) -> list[str]:
    if file is None:
        return []
    lines = takewhile(lambda line: line.startswith("#"), file.read_text(encoding="utf-8").splitlines())
    comment = [f"    {line}" for line in lines]
    return [f"  {file} begins with:", *comment] if comment else []


# Schemes of files elsewhere; other addresses are databases.
_NOT_READ = ("http", "https", "ftp", "sftp", "s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "hdfs", "dbfs")


def source_of(where: str, source: Source, folder: Path, experiment: Experiment | None = None) -> TableSource:
    """Find one table, its files relative to a folder; raises ExperimentError, which begins with `where`.

    Only with the experiment can a folder be one whose names of files are the table (`data.image.files`).
    """
    base = None
    if source.images is not None:
        base = folder / Path(source.images).expanduser()
        if not base.is_dir():
            raise ExperimentError(f"{where}.images: there is no folder {source.images} (looked in {folder})")
    form = TableForm.of(source).over(experiment.data.form if experiment else TableForm())
    uri = source.uri.removeprefix("file://")
    if (scheme := uri.partition("://")[0].lower()) in _NOT_READ:
        raise ExperimentError(f"{where}: {scheme} addresses are not read; fetch the file, and name where it is")
    if "://" not in uri:
        path = folder / Path(uri).expanduser()
        if not path.exists():
            raise ExperimentError(f"{where}: there is no file {uri} (looked in {folder}){meant(path)}")
        if path.is_dir() and base is not None:
            raise ExperimentError(f"{where}: {uri} is a folder; with images it must be a table")
        if path.is_dir():
            try:
                source_there = source_in(
                    path, experiment.data.image.names if experiment and experiment.data.image else None
                )
            except DataError as error:
                raise ExperimentError(f"{where}: {error}") from None
            kind = source.type or source_there.type
            return replace(source_there, type=kind, sheet_name=source.sheet_name, form=form)
        uri = str(path)
    return TableSource(uri, source.type, source.query, source.sheet_name, base=base, form=form)


def _without_measures(source: TableSource) -> TableSource:
    """Return a source without `data.measures`, whose files are read where the rows are."""
    return replace(source, form=replace(source.form, measures=None))


def _partitioned(sites: PartitionedSource, experiment: Experiment, folder: Path) -> dict[str, TableSource]:
    from v6_algorithm.data.builtin import load_builtin
    from v6_algorithm.data.partition.tables import cut_table

    base, assumed = None, {}
    if sites.source.startswith("builtin:"):
        frame = load_builtin(sites.source.removeprefix("builtin:"))
    else:
        try:
            whole = source_of("sites.source", Source(uri=sites.source, images=sites.images), folder, experiment)
            frame, base, assumed = _without_measures(whole).read(), whole.folder, whole.assumed
        except DataError as error:
            raise ExperimentError(f"sites.source: {error}") from None
    data = experiment.data
    for role, column in data.target_columns.items():
        if column not in frame.columns:
            there = named([str(name) for name in frame.columns])
            raise ExperimentError(f"data.{role}: column '{column}' is not in {sites.source}; {there}")
    # What a skewed partition skews: of several targets the first, of survival the event.
    target = data.target_columns.get("target.event", next(iter(data.target_columns.values())))
    try:
        parts = cut_table(
            sites.partition,
            frame,
            seeding.numpy_generator(experiment.seed, "partition"),
            target=target,
            positive=data.positive,
            group=data.group,
            classes=experiment.problem.kind == "classification",
        )
    except ExperimentError as error:
        raise ExperimentError(f"sites.partition: {error}") from None
    return {
        name: TableSource(frame=parts.frame_of(frame, site), base=base, assumed=dict(assumed))
        for site, name in enumerate(parts.names)
    }


def local_federation(
    experiment: Experiment,
    tables: Mapping[str, TableSource],
    policy: Policy | None = None,
    rounds_folder: Path | None = None,
    way: Way = "wire",
    workers: int | None = None,
) -> LocalFederation | WorkerFederation:
    """Simulate the sites on this machine; in mode centralised one site holds all tables.

    `way` is how requests and replies pass, and whether sites may be trained together; see `local`. `workers` is the
    number of processes, see `workers`; all sites are in this one where it is 1 or absent. Who asks for more closes the
    federation in the end.

    Without a policy, that of this machine holds: ``trusted`` where its environment names none. What sites keep from
    round to round is in a folder each below `rounds_folder`, or lost with the process. Where the rules require a ledger
    that lasts and name no folder, each site has one of this run alone, there or in a temporary folder.
    """
    contexts, temporary = _contexts(experiment, tables, policy or own_policy(), rounds_folder)
    if workers is None or (check_workers(workers, experiment, len(contexts)) == 1):
        return LocalFederation(contexts, way, temporary)
    from v6_algorithm.engines.simulation.workers import Processes, WorkerFederation, deal, threads_of

    groups = deal(contexts, workers)
    about = {"engine": "local", "threads": threads_of(workers)}
    return WorkerFederation(Processes(groups, way), groups, way, about, temporary)


def ray_federation(
    experiment: Experiment,
    tables: Mapping[str, TableSource],
    policy: Policy | None = None,
    rounds_folder: Path | None = None,
    way: Way = "fast",
    workers: int | None = None,
) -> WorkerFederation:
    """Simulate the sites on a Ray cluster, by as many workers as it has CPUs where `workers` is absent.

    See `local_federation`; who asks closes the federation in the end.
    """
    from v6_algorithm.engines.simulation.ray import Actors, for_machines, start_ray
    from v6_algorithm.engines.simulation.workers import WorkerFederation, deal

    tables = {name: for_machines(table) for name, table in tables.items()}
    folder = None if rounds_folder is None else rounds_folder.resolve()
    contexts, temporary = _contexts(experiment, tables, policy or own_policy(), folder)
    if workers is not None:
        check_workers(workers, experiment, len(contexts))
    if (there := start_ray(workers)) < (workers or 1):
        raise ExperimentError(f"workers: {workers} is not allowed: the cluster has {there} CPUs; allowed: 1 to {there}")
    groups = deal(contexts, workers or min(there, len(contexts)))
    return WorkerFederation(Actors(groups, way), groups, way, {"engine": "ray", "threads": 1}, temporary)


def check_workers(workers: int, experiment: Experiment, sites: int) -> int:
    """Return a number of workers; raises ExperimentError where so many cannot be."""
    if workers < 1:
        raise ExperimentError(f"workers: {workers} is not allowed; allowed: whole numbers from 1")
    if workers == 1:
        return workers
    if workers > sites:
        held = "mode centralised has one site" if experiment.mode == "centralised" else f"there are {sites} sites"
        raise ExperimentError(
            f"workers: {workers} is not allowed: {held}, and each worker holds at least one; allowed: 1 to {sites}"
        )
    if experiment.training.device != "cpu":
        import torch

        if torch.cuda.is_available():
            raise ExperimentError(
                f"workers: {workers} is not allowed on a GPU, which the sites share in one process; allowed: 1, or "
                "training.device cpu"
            )
    return workers


def _contexts(
    experiment: Experiment, tables: Mapping[str, TableSource], rules: Policy, rounds_folder: Path | None
) -> tuple[dict[str, SiteContext], TemporaryDirectory[str] | None]:
    """Return each site's surroundings, and the folder that must last as long as they do, if any."""
    guarded, refused = {}, []
    for name, table in tables.items():
        try:
            guarded[name] = guarded_source(rules, table)
        except PolicyError as error:
            refused.append(f"site '{name}': {error}")
    if refused:
        raise ExperimentError("\n".join(refused))
    tables = guarded
    needs_ledger = rules.require_ledger and rules.ledger_folder is None
    temporary = TemporaryDirectory(prefix="v6-algorithm-") if needs_ledger and rounds_folder is None else None
    ledgers = rounds_folder if temporary is None else Path(temporary.name)

    def context(sources: dict[str, TableSource], number: int) -> SiteContext:
        folder = None if rounds_folder is None else rounds_folder / str(number)
        mine = rules
        if needs_ledger and ledgers is not None:
            mine = replace(rules, ledger_folder=str(ledgers / str(number) / "ledger"))
        return SiteContext(sources, mine, rounds_folder=folder)

    if experiment.mode == "centralised":
        return {POOLED: context(dict(sorted(tables.items())), 0)}, temporary
    # Numbered by name: a site may be called anything, and the file may name them in another order.
    return {name: context({name: tables[name]}, number) for number, name in enumerate(sorted(tables))}, temporary


def mock_federation(experiment: Experiment, tables: Mapping[str, TableSource]) -> Vantage6Federation:
    """Simulate the sites with vantage6's own mock client."""
    from v6_algorithm.engines.vantage6.v4 import Vantage6Federation

    if experiment.mode == "centralised":
        raise ExperimentError("mode: centralised needs --engine local; the mock client has no site that holds all rows")
    try:
        from vantage6.algorithm.tools.mock_client import MockAlgorithmClient
    except ImportError:
        raise ExperimentError("--engine mock needs vantage6's tools: pip install 'v6-algorithm[vantage6]'") from None
    # The mock's sites read their policy from the environment themselves; one that cannot be read is told here.
    own_policy()
    names = dict(enumerate(sorted(tables)))
    # These need what a node has and the mock has not: a place that lasts from call to call.
    remembers = experiment.privacy.secure_aggregation or experiment.privacy.differential_privacy
    lasting = None if remembers is None else TemporaryDirectory(prefix="v6-algorithm-")
    datasets = []
    for name in names.values():
        try:
            frame = _without_measures(tables[name]).read()
        except DataError as error:
            raise ExperimentError(f"site '{name}': {error}") from None
        folder = tables[name].folder
        # The mock hands on a dataframe only; what its cells name is in the folder that goes with it.
        frame.attrs = {FOLDER: None if folder is None else str(folder), ASSUMED: tables[name].assumed}
        if lasting is not None:
            frame.attrs[STATE] = lasting.name
        datasets.append([{"database": frame}])
    client = MockAlgorithmClient(datasets=datasets, module="v6_algorithm")
    client.lasting = lasting  # as long as the client
    return Vantage6Federation(client, names=names)


def own_policy(preset: str | None = None) -> Policy:
    """Read the rules of this machine, as a node reads its own; a preset takes the place of the environment's.

    All sites of a run share one secret, so that a centralised run splits the rows as the federated one does.
    """
    environment = dict(os.environ)
    if preset is not None:
        environment[PRESET] = preset
    try:
        policy = Policy.from_environment(environment, default="trusted")
        if policy.secret_folds and policy.folds_secret is None:
            policy = replace(policy, folds_secret=secrets.token_hex(32))
        return policy
    except PolicyError as error:
        raise ExperimentError(str(error)) from None
