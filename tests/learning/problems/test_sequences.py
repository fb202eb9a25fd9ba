"""Time series: read from npz and parquet, cut to one length, scaled by channel, learned by GRU and LSTM."""

import numpy as np
import pandas as pd
import pytest
import torch
from hospitals import command, read_result

from v6_algorithm.data.builtin import load_builtin
from v6_algorithm.data.sequences import describe_sequences, stack_sequences
from v6_algorithm.data.sources import TableSource
from v6_algorithm.errors import DataError, ExperimentError
from v6_algorithm.experiment import Experiment, Recurrent, Sequence
from v6_algorithm.learning.models.sequences import RecurrentNetwork

CHANNELS_TIME = {"column": "x", "axes": "channels_time"}


def scans(rows, seed, times=30, channels=3, scale=1.0):
    """Return (rows, channels, times) and labels; a 1 is a first channel that climbs where that of a 0 falls."""
    generator = np.random.default_rng(seed)
    labels = np.arange(rows) % 2
    series = generator.normal(size=(rows, channels, times))
    series[:, 0] += np.outer(2 * labels - 1, np.linspace(-1.5, 1.5, times))
    return scale * series, labels


def frame_of(rows, seed, **options):
    series, labels = scans(rows, seed, **options)
    return pd.DataFrame({"x": list(series), "y": labels})


def sources(**options):
    return {name: TableSource(frame=frame_of(rows, rows, **options)) for name, rows in (("one", 60), ("two", 40))}


def experiment(sequence=CHANNELS_TIME, model=None, **changes):
    data = {"target": "y", "sequence": sequence, **changes.pop("data", {})}
    return Experiment.parse(
        {
            "data": data,
            "problem": "sequence_classification",
            "model": model or {"kind": "gru", "hidden": 8, "window": 5},
            "rounds": 12,
            "training": {"local_epochs": 2, "batch_size": 16, "optimizer": {"kind": "adam", "lr": 0.02}},
        }
        | changes
    )


def refusal(**changes):
    with pytest.raises(ExperimentError) as refused:
        experiment(**changes)
    return str(refused.value)


# -- reading -------------------------------------------------------------------------------------------------------


def test_npz_parquet_and_a_dataframe_are_the_same_series(tmp_path, run_locally):
    pytest.importorskip("pyarrow")
    parameters = []
    for form in ("npz", "parquet", "frame"):
        tables = {}
        for name, rows in (("one", 60), ("two", 40)):
            series, labels = scans(rows, rows)
            frame = pd.DataFrame({"x": [cell.tolist() for cell in series], "y": labels})
            file = tmp_path / f"{name}.{form}"
            if form == "npz":
                np.savez(file, x=series, y=labels)
            elif form == "parquet":
                frame.to_parquet(file)
            tables[name] = TableSource(frame=frame) if form == "frame" else TableSource(str(file))
        result = run_locally(experiment(rounds=1), tables)
        parameters.append((result["metrics"], result["preparation"]))
    assert parameters[0] == parameters[1] == parameters[2]


def test_a_node_calls_an_npz_file_other(tmp_path):
    np.savez(tmp_path / "scans.npz", x=np.zeros((4, 2, 3)), y=np.arange(4), site=np.array(["a"] * 4))
    frame = TableSource(str(tmp_path / "scans.npz"), "other").read()
    assert list(frame.columns) == ["x", "y", "site"]
    assert frame["x"][0].shape == (2, 3)


def test_an_npz_file_with_pickled_objects_is_refused_not_unpickled(tmp_path):
    """seeds.md 2.10 1: dinunet's np.load(allow_pickle=True) runs what a file says."""

    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("it was unpickled",))

    np.savez(tmp_path / "bomb.npz", x=np.array([Bomb()], dtype=object))
    with pytest.raises(DataError, match="Python objects"):
        TableSource(str(tmp_path / "bomb.npz")).read()


def test_arrays_of_different_numbers_of_rows_are_no_table(tmp_path):
    np.savez(tmp_path / "scans.npz", x=np.zeros((4, 2, 3)), y=np.arange(5))
    with pytest.raises(DataError, match="different numbers of rows"):
        TableSource(str(tmp_path / "scans.npz")).read()


@pytest.mark.parametrize("axes", ["channels_time", "time_channels"])
def test_axes_say_which_is_time(axes):
    cell = np.arange(6.0).reshape(2, 3)
    sequence = Sequence(column="x", axes=axes)
    column = pd.Series([cell if axes == "channels_time" else cell.T])
    assert describe_sequences(column, sequence) == {"shortest": 3, "longest": 3, "channels": 2}
    np.testing.assert_array_equal(stack_sequences(column, sequence, 2, 2, "float64")[0][0], cell.T[:2])


def test_a_list_of_numbers_is_one_channel():
    column = pd.Series([[1, 2, None, 4], [5, 6, 7]], dtype=object)
    sequence = Sequence(column="x")
    assert describe_sequences(column, sequence) == {"shortest": 3, "longest": 4, "channels": 1}
    np.testing.assert_array_equal(stack_sequences(column, sequence, 3, 1, "float32")[0][0, :, 0], [1, 2, np.nan])


@pytest.mark.parametrize("cell", ["SECRET-4711", 4711, None, [], [["SECRET-4711"]], np.zeros((2, 2, 2))])
def test_a_cell_that_is_no_series_is_refused_without_its_value(cell):
    column = pd.Series([np.zeros((3, 2)), cell], dtype=object)
    with pytest.raises(DataError, match=r"column 'x' \(data.sequence\) has cells that are no arrays") as refused:
        describe_sequences(column, Sequence(column="x"))
    assert "4711" not in str(refused.value)


def test_rows_of_different_channels_are_refused_with_the_axes():
    column = pd.Series([np.zeros((3, 2)), np.zeros((3, 5))])
    with pytest.raises(DataError, match=r"data\.sequence\.axes is time_channels"):
        describe_sequences(column, Sequence(column="x"))


def folder_of(path, rows, seed, form="npy", **options):
    """Write a folder with a table of labels and a file for each row; return the folder."""
    series, labels = scans(rows, seed, **options)
    (path / "scans").mkdir(parents=True)
    names = [f"scans/subject-{number}.{form}" for number in range(rows)]
    for name, cell in zip(names, series, strict=True):
        (np.save if form == "npy" else np.savez)(path / name, cell)
    pd.DataFrame({"x": names, "y": labels}).to_csv(path / "labels.csv", index=False)
    return path


@pytest.mark.parametrize("form", ["npy", "npz"])
def test_a_column_that_names_files_is_the_series_in_them(tmp_path, run_locally, form):
    named = {
        name: TableSource(str(folder_of(tmp_path / name, rows, rows, form) / "labels.csv"))
        for name, rows in (("one", 60), ("two", 40))
    }
    one, two = (run_locally(experiment(rounds=1), tables) for tables in (named, sources()))
    assert one["metrics"] == two["metrics"]
    assert one["preparation"] == two["preparation"]


@pytest.mark.parametrize(
    "name", ["SECRET-4711.npy", "/etc/SECRET-4711.npy", "../SECRET-4711.npy", "link.npy", "SECRET-4711.csv"]
)
def test_a_cell_cannot_name_what_is_not_a_series_in_the_folder(tmp_path, run_locally, name):
    for outside in (tmp_path / "SECRET-4711.npy", tmp_path / "SECRET-4711.csv"):
        np.save(outside.with_suffix(".npy"), np.zeros((3, 30)))
    folder = folder_of(tmp_path / "one", 20, 1)
    (folder / "link.npy").symlink_to(tmp_path / "SECRET-4711.npy")
    (folder / "SECRET-4711.csv").touch()
    table = pd.read_csv(folder / "labels.csv")
    table.loc[3, "x"] = name
    table.to_csv(folder / "labels.csv", index=False)
    tables = sources() | {"one": TableSource(str(folder / "labels.csv"))}
    with pytest.raises(
        ExperimentError, match=r"site 'one'.* has cells that do not name an .npy or .npz file"
    ) as refused:
        run_locally(experiment(rounds=1), tables)
    assert "4711" not in str(refused.value)


def test_a_file_of_pickled_objects_or_of_several_arrays_is_refused(tmp_path, run_locally):
    folder = folder_of(tmp_path / "one", 20, 1)
    tables = sources() | {"one": TableSource(str(folder / "labels.csv"))}
    for write in (
        lambda file: np.save(file, np.array([{}], dtype=object), allow_pickle=True),
        lambda file: file.write_bytes(b"not an array"),
        lambda file: file.write_bytes(b""),
    ):
        write(folder / "scans" / "subject-3.npy")
        with pytest.raises(ExperimentError, match="names files that are not one array of numbers each"):
            run_locally(experiment(rounds=1), tables)


def test_text_in_a_table_without_a_folder_names_no_file(run_locally):
    tables = sources() | {"one": TableSource(frame=pd.DataFrame({"x": ["a.npy"] * 20, "y": [0, 1] * 10}))}
    with pytest.raises(ExperimentError, match="holds text; a database, or a table without a file, has no folder"):
        run_locally(experiment(rounds=1), tables)


def test_a_changed_file_is_read_again(tmp_path):
    from v6_algorithm.data.preparation import Setup
    from v6_algorithm.exchange import wire
    from v6_algorithm.site import SiteContext
    from v6_algorithm.site.work import Work

    folder = folder_of(tmp_path / "one", 20, 1)
    context = SiteContext({"one": TableSource(str(folder / "labels.csv"))}, state=tmp_path / "state")
    setup = Setup(["x[0]", "x[1]", "x[2]"], {}, [0, 1], sequence_length=30)
    request = wire.message(
        site="one", round=0, attempt=1, sites=2, setup=setup.to_json(), experiment=experiment().for_sites()
    )
    before = Work(request, context).table(setup)
    np.save(folder / "scans" / "subject-3.npy", np.full((3, 30), 7.0))
    context.memory.clear()
    assert (Work(request, context).table(setup).values[3] == 7).all()
    context.memory.clear()
    assert (before.values[3] != 7).any()


def test_a_nodes_database_and_a_site_may_be_a_folder_with_one_table(tmp_path, monkeypatch):
    import yaml

    from v6_algorithm.data.sources import source_from_node

    for name, rows in (("one", 60), ("two", 40)):
        folder_of(tmp_path / name, rows, rows)
    content = experiment(rounds=2).resolved() | {"sites": {"one": "one", "two": "two"}}
    (tmp_path / "experiment.yaml").write_text(yaml.safe_dump(content))
    result = command("run", tmp_path / "experiment.yaml", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    node = {"USER_REQUESTED_DATABASE_LABELS": "scans", "SCANS_DATABASE_URI": str(tmp_path / "one"),
            "SCANS_DATABASE_TYPE": "other"}  # fmt: skip
    assert source_from_node(node).uri == str(tmp_path / "one" / "labels.csv")
    (tmp_path / "one" / "old.csv").touch()
    with pytest.raises(DataError, match="the folder one has 2 tables"):
        source_from_node(node)


# -- agreement -----------------------------------------------------------------------------------------------------


def test_series_are_cut_to_the_shortest_of_all_sites_and_that_is_told(run_locally):
    tables = sources()
    tables["two"] = TableSource(frame=frame_of(40, 40, times=22))
    result = run_locally(experiment(rounds=1), tables)
    assert result["preparation"]["sequence_length"] == 22
    assert "time series are cut to their first 22 times, the shortest; the longest has 30" in result["notes"]


def test_sites_with_other_channels_are_named(run_locally):
    tables = sources()
    tables["two"] = TableSource(frame=frame_of(40, 40, channels=4))
    with pytest.raises(ExperimentError, match="different numbers of channels: one 3, two 4"):
        run_locally(experiment(), tables)


def test_a_window_longer_than_the_series_is_refused(run_locally):
    with pytest.raises(ExperimentError, match=r"model.window is 31, the shortest time series has 30 times"):
        run_locally(experiment(model={"kind": "gru", "window": 31}), sources())


def test_a_channel_is_scaled_over_all_times_of_all_sites(run_locally):
    result = run_locally(
        experiment(rounds=1, split={"kind": "ratio", "train": 0.8, "validation": 0.2, "test": 0}), sources()
    )
    assert result["preparation"]["features"] == ["x[0]", "x[1]", "x[2]"]
    assert len(result["preparation"]["scale"]) == 3
    assert result["preparation"]["scale"][1] == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sequence": None}, "sequence_classification and data.sequence go together"),
        ({"problem": "classification", "model": "mlp"}, "go together"),
        ({"model": "mlp"}, "model.kind mlp is not for sequence_classification, which takes gru or lstm"),
        ({"problem": "classification", "model": "gru"}, "gru is not for classification"),
        ({"data": {"features": ["a"]}}, "leave out features and categorical"),
        ({"data": {"group": "x"}}, "column 'x' is the sequence and cannot be something else"),
    ],
)
def test_what_does_not_go_with_sequences_is_refused(changes, message):
    assert message in refusal(**changes)


def test_a_gru_is_the_model_unless_another_is_given():
    content = {"data": {"target": "y", "sequence": "x"}, "problem": "sequence_classification"}
    assert Experiment.parse(content).model.kind == "gru"


# -- padding -------------------------------------------------------------------------------------------------------

PADDED = CHANNELS_TIME | {"length": "longest"}
UNEVEN = (30, 24, 17, 21)


def uneven(rows, seed):
    """Scans of different lengths, with a gap here and there."""
    frame = frame_of(rows, seed)
    frame["x"] = [cell[:, : UNEVEN[number % 4]].copy() for number, cell in enumerate(frame["x"])]
    for cell in frame["x"][::5]:
        cell[1, 3] = np.nan
    return frame


def uneven_sources():
    return {name: TableSource(frame=uneven(rows, rows)) for name, rows in (("one", 60), ("two", 40))}


@pytest.mark.parametrize("kind", ["gru", "lstm"])
@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize("stride", [None, 2])
def test_a_padded_rows_output_is_that_of_the_row_alone(kind, bidirectional, stride):
    model = Recurrent(kind=kind, hidden=5, layers=2, bidirectional=bidirectional, window=4, stride=stride, encoder=6)
    torch.manual_seed(0)
    network = RecurrentNetwork(model, 3, 2, padded=True).double().eval()
    rows = [torch.randn(times, 3, dtype=torch.float64) for times in (9, 4, 23, 16)]
    batch = torch.full((4, 23, 3), torch.nan, dtype=torch.float64)
    for number, row in enumerate(rows):
        batch[number, : len(row)] = row
    network.padded = False
    alone = torch.cat([network(row[None]) for row in rows])
    network.padded = True
    torch.testing.assert_close(network(batch), alone, rtol=1e-10, atol=1e-12)
    network(batch).sum().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in network.parameters())


def test_statistics_are_over_the_rows_own_times_only(run_locally):
    split = {"kind": "ratio", "train": 1.0, "validation": 0.0, "test": 0.0}
    result = run_locally(experiment(sequence=PADDED, rounds=1, split=split), uneven_sources())
    assert result["preparation"]["sequence_length"] == 30
    assert not any("cut to" in note for note in result["notes"])
    cells = [cell for source in uneven_sources().values() for cell in source.frame["x"]]
    for channel in range(3):
        times = np.concatenate([cell[channel] for cell in cells])
        filled = np.where(np.isnan(times), np.nanmean(times), times)
        assert result["preparation"]["fill"][channel] == pytest.approx(np.nanmean(times), abs=1e-6)
        assert result["preparation"]["scale"][channel] == pytest.approx(filled.std(), rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("scaling", ["robust", {"kind": "standard", "scope": "site"}])
@pytest.mark.parametrize("mode", ["federated", "centralised"])
def test_padded_series_are_learned(run_locally, scaling, mode):
    result = run_locally(experiment(sequence=PADDED, data={"scaling": scaling}, mode=mode), uneven_sources())
    assert result["metrics"]["test"]["pooled"]["auroc"] > 0.8
    assert result["metrics"]["test"]["pooled"]["n"] == 20


def test_rows_of_one_length_are_the_same_padded_or_cut(run_locally):
    cut, padded = (run_locally(experiment(sequence=form, rounds=2), sources()) for form in (CHANNELS_TIME, PADDED))
    assert cut["preparation"] == padded["preparation"]
    assert cut["metrics"]["test"]["pooled"] == pytest.approx(padded["metrics"]["test"]["pooled"], rel=1e-4)


@pytest.mark.parametrize(("missing", "rows"), [("drop", 80), ("mean", 100)])
def test_padding_is_no_empty_cell(run_locally, missing, rows):
    result = run_locally(experiment(sequence=PADDED, data={"missing": missing}, rounds=1), uneven_sources())
    assert sum(site["n"]["rows"] for site in result["sites"].values()) == rows
    complete = {
        name: TableSource(frame=source.frame.assign(x=[np.nan_to_num(cell) for cell in source.frame["x"]]))
        for name, source in uneven_sources().items()
    }
    assert run_locally(experiment(sequence=PADDED, data={"missing": "error"}, rounds=1), complete)["rounds_run"] == 1


def test_a_window_longer_than_the_shortest_is_refused_where_rows_are_padded_too(run_locally):
    with pytest.raises(ExperimentError, match=r"model.window is 18, the shortest time series has 17 times"):
        run_locally(experiment(sequence=PADDED, model={"kind": "gru", "window": 18}), uneven_sources())


def test_lengths_are_kept_with_the_table(tmp_path):
    from v6_algorithm.data.cache import keep, load_cached
    from v6_algorithm.data.encoding import load_table
    from v6_algorithm.data.preparation import Setup
    from v6_algorithm.data.targets import TargetColumn

    setup = Setup(["x[0]", "x[1]", "x[2]"], {}, [0, 1], sequence_length=30, sequence_shortest=17)
    frame = uneven(20, 1)
    table = load_table({"one": frame}, experiment(sequence=PADDED), setup, [TargetColumn("y", kind="class")])
    keep(tmp_path, "key", table)
    again = load_cached(tmp_path, "key")
    assert again.lengths.tolist() == table.lengths.tolist() == [cell.shape[1] for cell in frame["x"]]


# -- networks ------------------------------------------------------------------------------------------------------


def test_the_ica_lstm_has_the_shape_and_parameters_of_dinunets():
    """seeds.md 2.6: [98, 100, 10] windows, Linear to 256, bidirectional LSTM of 384, head 256-64-2; 1,063,106."""
    model = Recurrent(kind="lstm", window=10, encoder=256, hidden=192, head=[256, 64], dropout=0.25, norm="batch")
    network = RecurrentNetwork(model, 100, 2)
    assert sum(parameter.numel() for parameter in network.parameters()) == 1_063_106
    windows = []
    network.recurrent.register_forward_pre_hook(lambda _, inputs: windows.append(inputs[0].shape))
    assert network(torch.zeros(3, 980, 100)).shape == (3, 2)
    assert windows == [(3, 98, 256)]


def test_layers_and_directions_are_as_asked():
    """seeds.md 2.10 15: dinunet's hand-written LSTM ignored num_layers and applied the gates' sigmoid twice."""
    one, two = (RecurrentNetwork(Recurrent(kind="lstm", layers=n), 3, 1).recurrent for n in (1, 2))
    assert isinstance(one, torch.nn.LSTM)
    assert (one.num_layers, two.num_layers) == (1, 2)
    assert one.bidirectional


def test_the_reverse_direction_is_flipped_back():
    """seeds.md 2.10 15: a change at the last time reaches the first step of the reverse direction, and vice versa."""
    network = RecurrentNetwork(Recurrent(kind="gru", hidden=4), 2, 1)
    first, last = torch.zeros(2, 1, 9, 2)
    last[0, -1] = 1.0
    change = (network.recurrent(last)[0] - network.recurrent(first)[0])[0].abs()
    assert (change[:-1, :4] == 0).all()
    assert (change[0, 4:] > 0).all()


def test_windows_overlap_by_their_stride():
    model = Recurrent(kind="gru", window=4, stride=2)
    network, steps = RecurrentNetwork(model, 1, 1), []
    network.recurrent.register_forward_pre_hook(lambda _, inputs: steps.append(inputs[0][0]))
    network(torch.arange(9.0).reshape(1, 9, 1))
    assert steps[0].tolist() == [[0, 1, 2, 3], [2, 3, 4, 5], [4, 5, 6, 7]]


# -- learning ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "model",
    [
        {"kind": "gru", "hidden": 8, "window": 5},
        {"kind": "lstm", "hidden": 8, "bidirectional": False, "layers": 2, "encoder": 8, "window": 5, "head": [8]},
    ],
    ids=["gru", "lstm"],
)
def test_sequences_are_learned(run_locally, model):
    result = run_locally(experiment(model=model), sources())
    assert result["metrics"]["test"]["pooled"]["auroc"] > 0.9


def test_a_node_that_does_not_allow_the_column_refuses(run_locally, monkeypatch):
    monkeypatch.setenv("V6_ALGORITHM_ALLOWED_COLUMNS_REGEX", "y|other")
    with pytest.raises(Exception, match="column 'x'"):
        run_locally(experiment(), sources())
    monkeypatch.setenv("V6_ALGORITHM_ALLOWED_COLUMNS_REGEX", "y|x")
    assert run_locally(experiment(rounds=1), sources())["status"] == "completed"


def test_sites_on_a_laptop_are_npz_files(tmp_path):
    import yaml

    for name, rows in (("one", 60), ("two", 40)):
        series, labels = scans(rows, rows)
        np.savez(tmp_path / f"{name}.npz", x=series, y=labels)
    content = experiment(rounds=2).resolved() | {"sites": {"one": "one.npz", "two": "two.npz"}}
    (tmp_path / "experiment.yaml").write_text(yaml.safe_dump(content))
    result = command("run", tmp_path / "experiment.yaml", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert read_result(tmp_path / "out")["rounds_run"] == 2


def test_the_made_scans_differ_in_their_order_only():
    frame = load_builtin("made_ica")
    series, patient = np.stack(frame["components"].to_list()), frame["patient"].to_numpy() == 1
    assert series.shape == (400, 6, 120)
    assert abs(series[patient].std() - series[~patient].std()) < 0.02
    slow = (series[:, 0, 1:] * series[:, 0, :-1]).mean(axis=1)
    assert slow[patient].mean() > 0.6 > 0.3 > slow[~patient].mean()
