"""Federated deep learning for biomedical data, as one vantage6 algorithm.

The functions below are the only names that the network may call: vantage6's wrapper looks a task's method up among
the names of this module, so nothing else may be one of them. Importing the package imports neither torch nor pandas.
"""

import sys
import types


def master(client=None, experiment=None, *, organizations=None, names=None, mock_client=None):  # type: ignore[no-untyped-def]
    """Train and evaluate an experiment over the organisations of the collaboration.

    Parameters
    ----------
    client : AlgorithmClient, optional
        Taken from the container's environment when vantage6 does not pass it.
    experiment : dict
        The experiment, as in an experiment file without `sites`.
    organizations : list of int or str, optional
        Ids or names of the organisations that take part; all of the collaboration when absent.
    names : dict, optional
        Organisation id to the name that results show.

    Returns
    -------
    dict
        The result; see DESIGN's contract of `result.json`.
    """
    from v6_algorithm.entry import run_master

    return run_master(client, experiment, organizations=organizations, names=names, mock_client=mock_client)


def describe(client=None, experiment=None, *, organizations=None, names=None, mock_client=None):  # type: ignore[no-untyped-def]
    """Describe the tables of the collaboration's organisations; nothing is trained.

    Parameters
    ----------
    client, experiment, organizations, names
        As for `master`; of the experiment only `data` counts.

    Returns
    -------
    dict
        See `v6_algorithm.summary.federated.describe`.
    """
    from v6_algorithm.entry import run_describe

    return run_describe(client, experiment, organizations=organizations, names=names, mock_client=mock_client)


def RPC_summary(data=None, request=None, *, mock_data=None):  # type: ignore[no-untyped-def]
    """Tell counts and sums of this node's table, cells of few rows left out.

    Parameters
    ----------
    data : pandas.DataFrame, optional
        The node's table; read from the database that the task asked for when absent.
    request : dict
        A message from `describe`.
    """
    from v6_algorithm.entry import run_site

    return run_site("summary", data, request, mock_data)


def RPC_prepare(data=None, request=None, *, mock_data=None):  # type: ignore[no-untyped-def]
    """Tell columns, or sums over the training rows, of this node's table.

    Parameters
    ----------
    data : pandas.DataFrame, optional
        The node's table; read from the database that the task asked for when absent.
    request : dict
        A message from `master`.
    """
    from v6_algorithm.entry import run_site

    return run_site("prepare", data, request, mock_data)


def RPC_train(data=None, request=None, *, mock_data=None):  # type: ignore[no-untyped-def]
    """Validate the model in the request on this node's rows, train it on them, and return it.

    Parameters
    ----------
    data : pandas.DataFrame, optional
        The node's table; read from the database that the task asked for when absent.
    request : dict
        A message from `master`.
    """
    from v6_algorithm.entry import run_site

    return run_site("train", data, request, mock_data)


def RPC_evaluate(data=None, request=None, *, mock_data=None):  # type: ignore[no-untyped-def]
    """Measure the model in the request on this node's rows.

    Parameters
    ----------
    data : pandas.DataFrame, optional
        The node's table; read from the database that the task asked for when absent.
    request : dict
        A message from `master`.
    """
    from v6_algorithm.entry import run_site

    return run_site("evaluate", data, request, mock_data)


# The mock client passes itself, or the data, to functions that carry these marks.
for _central in (master, describe):
    _central.wrapped_in_algorithm_client_decorator = True  # type: ignore[attr-defined]
for _function in (RPC_summary, RPC_prepare, RPC_train, RPC_evaluate):
    _function.wrapped_in_data_decorator = True  # type: ignore[attr-defined]
del _central, _function


class _Package(types.ModuleType):
    """Keeps `master` the function: the first import of the submodule of that name would put the module in its place."""

    def __setattr__(self, name: str, value: object) -> None:
        if name != "master":
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
del _Package, sys, types
