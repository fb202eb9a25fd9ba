"""What the commands say of images: what was checked, where the pictures went, and what they cannot use."""

import json

import pytest
import yaml
from hospitals import command
from pictures import gan, hospital

pytest.importorskip("PIL.Image")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for seed, name in enumerate(("amsterdam", "berlin")):
        hospital(folder / name, 70, seed)
    return folder


def written(folder, tmp_path, **changes):
    content = gan(rounds=1) | {"sites": {name: str(folder / name) for name in ("amsterdam", "berlin")}} | changes
    (tmp_path / "e.yaml").write_text(yaml.safe_dump(content))
    return tmp_path / "e.yaml"


def said(done):
    return " ".join(done.output.split())


def test_validate_tells_the_size_of_images_and_not_their_channels_as_inputs(folder, tmp_path):
    done = command("validate", written(folder, tmp_path))
    assert done.exit_code == 0
    assert "valid; images of 16 x 16, channels: 3, 2 classes" in said(done)


def test_a_run_says_in_which_folder_the_pictures_are_and_the_report_what_the_images_were(folder, tmp_path):
    done = command("run", written(folder, tmp_path), "--out", tmp_path / "run")
    assert "samples/round-1.png" in said(done)
    report = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "<dt>Images</dt><dd>16 x 16, channels: 3</dd>" in report
    assert "<dt>Features</dt>" not in report
    assert json.loads((tmp_path / "run" / "result.json").read_text())["status"] == "completed"


def test_partition_of_a_folder_says_how_its_table_is_cut(folder, tmp_path):
    done = command("partition", folder / "berlin", "--sites", 2, "--out", tmp_path / "parts")
    assert done.exit_code == 2
    assert "is a folder; give the table in it, and in the experiment `images:" in said(done)


def test_a_result_that_is_not_there_is_not_called_a_pickle(tmp_path):
    done = command("generate", tmp_path / "nothing")
    assert done.exit_code == 2
    assert "RESULT: there is no file or folder" in said(done)
    assert "pickle" not in said(done)


def test_an_empty_list_is_refused_in_plain_words(folder, tmp_path):
    done = command("validate", written(folder, tmp_path), "--set", "problem=image_classification", "--set",
                   "model={kind: cnn, widths: []}")  # fmt: skip
    assert done.exit_code == 2
    assert "model.widths: must have 1 or more entries" in said(done)
