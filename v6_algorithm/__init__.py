"""Federated deep learning for biomedical data, as one vantage6 algorithm.

The functions below are the only names that the network may call: vantage6's wrapper looks a task's method up among
the names of this module, so nothing else may be one of them. Importing the package imports neither torch nor pandas.
"""

from v6_algorithm.engines import marks


def master(  # type: ignore[no-untyped-def]
    client=None,
    data=None,
    experiment=None,
    *,
    target=None,
    positive=None,
    features=None,
    categorical=None,
    exclude=None,
    group=None,
    scaling=None,
    missing=None,
    problem=None,
    model=None,
    hidden=None,
    train_share=None,
    validation_share=None,
    test_share=None,
    folds=None,
    rounds=None,
    local_epochs=None,
    batch_size=None,
    optimizer=None,
    learning_rate=None,
    patience=None,
    seed=None,
    minimum_sites=None,
    deadline_s=None,
    organizations=None,
    names=None,
    weights=None,
    resume=None,
    mock_client=None,
):
    """Train and evaluate an experiment over the organisations of the collaboration.

    Parameters
    ----------
    client : AlgorithmClient, optional
        Taken from the container's environment when vantage6 does not pass it.
    data : optional
        Not used: vantage6 3 passes the node's own table here. The experiment may stand in this place, or in the first.
    experiment : dict, optional
        The experiment, as in an experiment file without `sites`.
    target, positive, features, categorical, exclude, group, scaling, missing : optional
        Keys of the experiment's `data`; see `v6_algorithm.experiment.arguments.PATHS`. This and all below override
        `experiment`; None, an empty text and an empty list change nothing.
    problem, model, hidden : optional
        What is learned, the network, and the widths of an mlp's layers.
    train_share, validation_share, test_share, folds : optional
        Three shares of the rows that add up to 1, or the number of folds of a cross-validation.
    rounds, local_epochs, batch_size, optimizer, learning_rate, patience, seed : optional
        How it is trained, and when it stops.
    minimum_sites, deadline_s : optional
        Sites that must answer, and the seconds that a round may take.
    organizations : list of int or str, optional
        Ids or names of the organisations that take part; all of the collaboration when absent.
    names : dict, optional
        Organisation id to the name that results show.
    weights : str, optional
        What the experiment's `start.weights` names: the bytes of a safetensors file, in base64.
    resume : int or list of int, optional
        Earlier tasks of the same experiment that were cut short: what the sites answered them is taken instead of
        asking again. `v6-algorithm resume` fills it in.

    Returns
    -------
    dict
        The result; see DESIGN's contract of `result.json`.
    """
    arguments = dict(locals())
    from v6_algorithm.engines.entry import run_master

    return run_master(**arguments)


def describe(  # type: ignore[no-untyped-def]
    client=None,
    data=None,
    experiment=None,
    *,
    target=None,
    positive=None,
    features=None,
    categorical=None,
    exclude=None,
    problem=None,
    organizations=None,
    names=None,
    mock_client=None,
):
    """Describe the tables of the collaboration's organisations; nothing is trained.

    Parameters
    ----------
    client, data, experiment, organizations, names
        As for `master`; of the experiment only `data` and `problem` count.
    target, positive, features, categorical, exclude, problem : optional
        Keys of the experiment, as for `master`.

    Returns
    -------
    dict
        See `v6_algorithm.coordinator.description.describe.describe`.
    """
    arguments = dict(locals())
    from v6_algorithm.engines.entry import run_describe

    return run_describe(**arguments)


def tune(client=None, data=None, experiment=None, *, organizations=None, names=None, weights=None, mock_client=None):  # type: ignore[no-untyped-def]
    """Try the settings of the experiment's `tune` on validation rows, then run it with the best as `master` does.

    Parameters
    ----------
    client, data, experiment, organizations, names, weights
        As for `master`.

    Returns
    -------
    dict
        The result of `master` with the best setting, and under ``tuning`` what was tried.
    """
    arguments = dict(locals())
    from v6_algorithm.engines.entry import run_tune

    return run_tune(**arguments)


def check(client=None, data=None, experiment=None, *, organizations=None, names=None, mock_client=None):  # type: ignore[no-untyped-def]
    """Ask the collaboration's organisations what would go wrong with an experiment; nothing is trained.

    Parameters
    ----------
    client, data, experiment, organizations, names
        As for `master`.

    Returns
    -------
    dict
        See `v6_algorithm.coordinator.description.preflight.preflight`.
    """
    arguments = dict(locals())
    from v6_algorithm.engines.entry import run_check

    return run_check(**arguments)


def RPC_summary(data=None, request=None, *, mock_data=None):  # type: ignore[no-untyped-def]
    """Tell counts and sums of this node's table, cells of few rows left out.

    Parameters
    ----------
    data : pandas.DataFrame, optional
        The node's table; read from the database that the task asked for when absent.
    request : dict
        A message from `describe`.
    """
    from v6_algorithm.engines.resident.courier import answer

    return answer("summary", data, request, mock_data)


def RPC_prepare(data=None, request=None, *, mock_data=None):  # type: ignore[no-untyped-def]
    """Tell columns, or sums over the training rows, of this node's table.

    Parameters
    ----------
    data : pandas.DataFrame, optional
        The node's table; read from the database that the task asked for when absent.
    request : dict
        A message from `master`.
    """
    from v6_algorithm.engines.resident.courier import answer

    return answer("prepare", data, request, mock_data)


def RPC_train(data=None, request=None, *, mock_data=None):  # type: ignore[no-untyped-def]
    """Validate the model in the request on this node's rows, train it on them, and return it.

    Parameters
    ----------
    data : pandas.DataFrame, optional
        The node's table; read from the database that the task asked for when absent.
    request : dict
        A message from `master`.
    """
    from v6_algorithm.engines.resident.courier import answer

    return answer("train", data, request, mock_data)


def RPC_evaluate(data=None, request=None, *, mock_data=None):  # type: ignore[no-untyped-def]
    """Measure the model in the request on this node's rows.

    Parameters
    ----------
    data : pandas.DataFrame, optional
        The node's table; read from the database that the task asked for when absent.
    request : dict
        A message from `master`.
    """
    from v6_algorithm.engines.resident.courier import answer

    return answer("evaluate", data, request, mock_data)


def RPC_reside(data=None, request=None, *, mock_data=None):  # type: ignore[no-untyped-def]
    """Serve the other RPC_ functions of this job from one process that lasts, or end the one that does.

    Parameters
    ----------
    data : optional
        Not used: vantage6 3 passes the node's own table here. The request may stand in this place.
    request : dict
        A message from `master`.
    """
    from v6_algorithm.engines.resident.trainer import reside

    return reside(data, request, mock_data)


def RPC_publish(data=None, request=None, *, mock_data=None):  # type: ignore[no-untyped-def]
    """Make a model that `master` left in this job's folder this run's result, for the sites to fetch.

    Parameters
    ----------
    data : optional
        Not used: vantage6 3 passes the node's own table here. The request may stand in this place.
    request : dict
        A message from `master`.
    """
    from v6_algorithm.engines.vantage6.published import publish

    return publish(data if request is None else request)


def extract(  # type: ignore[no-untyped-def]
    query=None,
    sheet_name=None,
    files=None,
    column=None,
    separator=None,
    decimal=None,
    thousands=None,
    encoding=None,
    *,
    mock_uri=None,
    mock_type=None,
):
    """Read this node's database into a session's dataframe; vantage6 5 only, where training does not see databases.

    Parameters
    ----------
    query : str, optional
        Of a SQL database; only one that the node's owner has listed runs.
    sheet_name : str, optional
        Of an Excel file; its first sheet when absent.
    files, column : str, optional
        `data.image.files` and `data.image.column` of the experiment: a folder without a table, whose files' names are
        one.
    separator, decimal, thousands, encoding : str, optional
        How the table is written, as in the experiment's `data`.
    """
    arguments = dict(locals())
    from v6_algorithm.engines.vantage6.extraction import run_extract

    return run_extract(**arguments)


# vantage6 5 runs no function without such marks, and the mock clients pass themselves, or the data, by them.
marks.mark_central(master, describe, tune, check)
marks.mark_federated(RPC_summary, RPC_prepare, RPC_train, RPC_evaluate)
marks.mark_of_version_4(RPC_reside, RPC_publish)
marks.mark_extraction(extract)
