"""Where a site's images are: beside a table, in a folder by itself or named by class; the same run at every engine."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import yaml
from hospitals import SECRET, command

import v6_algorithm
from v6_algorithm.coordinator.master import run
from v6_algorithm.data.imaging import room, stack
from v6_algorithm.data.sources import TableSource, source_in
from v6_algorithm.engines.simulation import local
from v6_algorithm.engines.simulation.simulate import mock_federation, tables_of
from v6_algorithm.errors import ExperimentError
from v6_algorithm.exchange import wire
from v6_algorithm.experiment import Experiment
from v6_algorithm.site.policy import ALLOWED_COLUMNS, Policy

ROWS = {"amsterdam": 36, "berlin": 30, "cairo": 24}
FILES = "{y}/{patient}_*.npy"


def write(root):
    """Write each hospital's images, named by class, and a table of them beside their folder."""
    for seed, (name, rows) in enumerate(ROWS.items()):
        generator = np.random.default_rng(seed)
        table = []
        for row in range(rows):
            label, patient = row % 2, f"p{row // 4}"
            values = generator.integers(0, 150, (6, 5)).astype(np.uint8)
            values[:3, :3] += np.uint8(90 * label)
            # In the order of their names, which is that of a table of names.
            path = f"{label}/{patient}_{SECRET}{row:03d}.npy"
            (root / name / path).parent.mkdir(parents=True, exist_ok=True)
            np.save(root / name / path, values)
            table.append({"file": path, "y": label, "patient": patient})
        table.sort(key=lambda row: row["file"])
        pd.DataFrame(table).to_csv(root / f"{name}.csv", index=False)
    return root


def content(**changes):
    return {
        "data": {"target": "y", "group": "patient", "image": {"files": FILES}},
        "problem": "image_classification",
        "model": {"kind": "cnn", "widths": [4]},
        "rounds": 2,
        "training": {"batch_size": 8, "optimizer": {"kind": "adam", "lr": 0.01}},
        "participation": {"minimum": 3},
        **changes,
    }


def experiment(**changes):
    return Experiment.parse(content(**changes))


def outcome(result):
    """Everything of a result that does not depend on the time or the engine."""
    parameters = {name: tensor.tolist() for name, tensor in wire.unpack(result["parameters"]).items()}
    return result["metrics"], parameters, result["sites"], result["preparation"]["shift"]


def named(root):
    return {name: source_in(root / name, (FILES, "file")) for name in ROWS}


def beside(root):
    return {name: TableSource(str(root / f"{name}.csv"), base=root / name) for name in ROWS}


# -- one run, whatever a site keeps its images in ------------------------------------------------------------------


@pytest.mark.slow
def test_three_ways_to_keep_images_give_one_result(tmp_path, run_locally):
    write(tmp_path)
    shutil.copy(tmp_path / "berlin.csv", tmp_path / "berlin" / "table.csv")
    mixed = named(tmp_path) | {"amsterdam": beside(tmp_path)["amsterdam"], "berlin": source_in(tmp_path / "berlin")}
    shutil.copytree(tmp_path, tmp_path / "copy")
    (tmp_path / "copy" / "berlin" / "table.csv").unlink()
    assert outcome(run_locally(experiment(), mixed)) == outcome(run_locally(experiment(), named(tmp_path / "copy")))


@pytest.mark.slow
def test_an_experiment_file_names_the_folder_of_a_tables_images(tmp_path, run_locally):
    write(tmp_path)
    sites = {name: {"uri": f"{name}.csv", "images": name} for name in ROWS}
    checked = experiment(sites=sites)
    assert outcome(run_locally(checked, tables_of(checked, tmp_path))) == outcome(
        run_locally(experiment(), named(tmp_path))
    )
    with pytest.raises(ExperimentError, match=r"sites\.berlin\.images: there is no folder nowhere"):
        tables_of(experiment(sites={"berlin": {"uri": "berlin.csv", "images": "nowhere"}}), tmp_path)
    with pytest.raises(ExperimentError, match=r"sites\.berlin: berlin is a folder; with images it must be a table"):
        tables_of(experiment(sites={"berlin": {"uri": "berlin", "images": "berlin"}}), tmp_path)


def test_one_folder_named_by_class_is_cut_into_hospitals_by_patient(tmp_path, run_locally):
    write(tmp_path)
    sites = {"source": "amsterdam", "partition": {"kind": "grouped", "sites": 2, "by": "patient"}}
    checked = experiment(sites=sites, participation={"minimum": 2})
    assert run_locally(checked, tables_of(checked, tmp_path))["rounds_run"] == 2


def test_a_table_that_is_cut_into_hospitals_may_name_images_in_another_folder(tmp_path):
    write(tmp_path)
    sites = {"source": "berlin.csv", "images": "berlin", "partition": {"kind": "iid", "sites": 2}}
    found = tables_of(experiment(sites=sites), tmp_path)
    assert {source.folder for source in found.values()} == {tmp_path / "berlin"}


@pytest.mark.slow
@pytest.mark.parametrize("make", [named, beside])
def test_the_mock_client_gives_the_bits_of_the_local_engine(tmp_path, run_locally, make):
    pytest.importorskip("vantage6.algorithm.tools")
    sites = make(write(tmp_path))
    result = run(mock_federation(experiment(), sites), experiment())
    assert outcome(result) == outcome(run_locally(experiment(), sites))


@pytest.mark.slow
def test_the_command_line_runs_folders_of_classes(tmp_path):
    write(tmp_path)
    (tmp_path / "e.yaml").write_text(yaml.safe_dump(content(sites={name: name for name in ROWS})))
    done = command("run", tmp_path / "e.yaml", "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert SECRET not in "".join(path.read_text(errors="ignore") for path in (tmp_path / "out").iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("labels", ["table,images", "images"])
def test_a_node_answers_from_two_databases_or_one_as_the_local_engine_does(tmp_path, monkeypatch, run_locally, labels):
    requests, answer = [], local.handle

    def listen(method, request, context, **options):
        reply = answer(method, request, context, **options)
        requests.append((method, request, reply))
        return reply

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local, "handle", listen)
        run_locally(experiment(), named(write(tmp_path)))
    monkeypatch.setenv("USER_REQUESTED_DATABASE_LABELS", labels)
    monkeypatch.setenv("TABLE_DATABASE_URI", str(tmp_path / "berlin.csv"))
    monkeypatch.setenv("TABLE_DATABASE_TYPE", "csv")
    monkeypatch.setenv("IMAGES_DATABASE_URI", str(tmp_path / "berlin"))
    monkeypatch.setenv("IMAGES_DATABASE_TYPE", "folder")
    monkeypatch.setenv("TEMPORARY_FOLDER", str(tmp_path / "state"))
    asked = [entry for entry in requests if entry[1]["site"] == "berlin"]
    assert len(asked) > 3
    for method, request, expected in asked:
        reply = getattr(v6_algorithm, f"RPC_{method}")(request=request)
        assert without_seconds(reply) == without_seconds(json.loads(wire.to_text(expected)))


def without_seconds(reply):
    return {key: value for key, value in reply.items() if key != "timing"}


@pytest.mark.parametrize("labels", [["table", "table"], ["table", "images", "more"]])
def test_three_databases_or_one_twice_are_refused_before_a_server_is_asked(tmp_path, labels):
    (tmp_path / "e.yaml").write_text(yaml.safe_dump(content()))
    options = [option for label in labels for option in ("--database", label)]
    address = ["--server", "http://127.0.0.1:1", "--username", "ada", "--image", "v6"]
    done = command("submit", tmp_path / "e.yaml", *address, *options)
    assert done.exit_code == 2
    assert "allowed: one label, or those of a table and a folder" in done.output


# -- what names may not tell ---------------------------------------------------------------------------------------


def test_images_that_a_template_leaves_out_are_counted_above_a_cells_size(tmp_path, run_locally):
    write(tmp_path)
    for number in range(7):
        np.save(tmp_path / "berlin" / "0" / f"{SECRET}{number}.npy", np.zeros((6, 5), np.uint8))
    np.save(tmp_path / "cairo" / "0" / f"{SECRET}.npy", np.zeros((6, 5), np.uint8))
    notes = run_locally(experiment(rounds=1), named(tmp_path))["notes"]
    assert "site 'berlin': 7 images have a name that data.image.files does not fit, and are left out" in notes
    assert "site 'cairo': some images have a name that data.image.files does not fit, and are left out" in notes


def test_a_node_that_names_its_columns_has_to_name_the_template_as_well(tmp_path):
    pattern = "file|y|patient"
    contexts = {name: local.SiteContext({name: source}) for name, source in named(write(tmp_path)).items()}
    contexts["berlin"].policy = Policy.from_environment({"V6_ALGORITHM_POLICY": "trusted", ALLOWED_COLUMNS: pattern})
    with pytest.raises(Exception, match=r"does not allow column '\{y\}/\{patient\}_\*\.npy'") as refused:
        run(local.LocalFederation(contexts), experiment())
    assert SECRET not in str(refused.value)
    pattern += r"|\{y\}/\{patient\}_\*\.npy"
    contexts["berlin"].policy = Policy.from_environment({"V6_ALGORITHM_POLICY": "trusted", ALLOWED_COLUMNS: pattern})
    assert run(local.LocalFederation(contexts), experiment(rounds=1))["status"] == "completed"


# -- streamed ------------------------------------------------------------------------------------------------------


@pytest.fixture
def no_room(monkeypatch):
    """No disk takes images, and no more than one stays in memory."""

    def full(*_):
        raise OSError("no space left")

    monkeypatch.setattr(room, "reserve", full)
    monkeypatch.setattr(room.os, "posix_fallocate", full)
    monkeypatch.setattr(room, "_MEMORY_BYTES", 0)
    monkeypatch.setattr(room, "_STREAM_BYTES", 0)


@pytest.mark.slow
def test_streamed_images_give_the_bits_of_those_that_are_kept(tmp_path, run_locally, no_room, monkeypatch):
    write(tmp_path)
    (tmp_path / "cairo" / "0" / f"p0_{SECRET}000.npy").write_bytes(b"no image")
    changes = {"data": {"target": "y", "image": {"files": FILES, "tolerance": 0.1}}}
    streamed = run_locally(experiment(**changes), named(tmp_path))
    monkeypatch.undo()
    kept = run_locally(experiment(**changes), named(tmp_path))
    assert outcome(streamed) == outcome(kept)
    told = "site '{}': its images fit on no disk there, and are decoded anew for every batch"
    assert set(streamed["notes"]) - set(kept["notes"]) == {told.format(name) for name in ROWS}
    assert any("1 images are missing or cannot be read, and are left out (1: " in note for note in kept["notes"])


def test_a_node_goes_on_to_stream_without_looking_at_every_image_again(tmp_path, no_room, monkeypatch):
    files = sorted((write(tmp_path) / "cairo").rglob("*.npy"))
    image, keep = experiment().data.image, tmp_path / "state" / "images-0.npy"
    made = stack.read_stack(files, image, keep)
    assert made.streamed
    assert [path.name for path in keep.parent.iterdir()] == ["images-0.json"]
    read = []
    decode = stack.read_as_asked
    monkeypatch.setattr(stack, "read_as_asked", lambda *given: read.append(given[0]) or decode(*given))
    found = stack.load_stack(keep, lambda: files, image)
    assert (found.shape, found.unit, found.array.dtype) == (made.shape, made.unit, np.uint8)
    rows = np.array([5, 3, 5])
    np.testing.assert_array_equal(found.array[rows], made.array[rows])
    assert len(read) == 6
    files[3].write_bytes(b"gone")
    with pytest.raises(stack.DataError, match="row 4") as refused:
        found.array[rows]
    assert SECRET not in str(refused.value)


def test_a_stream_keeps_the_images_it_read_last(tmp_path):
    read = []
    one = room.Stream(
        lambda row: read.append(row) or np.full((1, 2, 2), row, np.uint8), (9, 1, 2, 2), np.dtype("u1"), []
    )
    assert one[np.array([1, 2, 1])][:, 0, 0, 0].tolist() == [1, 2, 1]
    assert one[np.array([2, 1])][:, 0, 0, 0].tolist() == [2, 1]
    assert read == [1, 2]
