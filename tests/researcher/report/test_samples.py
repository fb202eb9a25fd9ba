"""SampleGrids of what a generative model makes, in the page and as files; a result from elsewhere may hold anything."""

import base64
import json

import numpy as np
import pytest

from v6_algorithm.exchange import png
from v6_algorithm.researcher.report import write_artifacts
from v6_algorithm.researcher.report.page import render

PICTURE = png.encode(np.zeros((4, 6, 3), dtype=np.uint8))


def result(*rounds, classes=("benign", "melanoma")):
    return {
        "name": "made",
        "status": "completed",
        "rounds_run": 5,
        "best_round": 5,
        "history": {"round": [1, 2, 5], "train_loss": [3.0, 2.0, 2.0], "validation_fid": [50.0, None, 12.5]},
        "samples": {"classes": list(classes), "rounds": list(rounds)},
    }


def picture(number, content=PICTURE):
    return {"round": number, "png": base64.b64encode(content).decode()}


def test_the_page_shows_each_picture_with_its_rounds_fid_and_names_the_classes():
    page = render(result(picture(1), picture(2), picture(5)))
    assert page.count(f"data:image/png;base64,{picture(1)['png']}") == 3
    assert "<b>Round 1</b>, FID 50.000</figcaption>" in page
    assert "<b>Round 2</b></figcaption>" in page
    assert "<b>Round 5</b>, FID 12.500, the model that was kept</figcaption>" in page
    assert page.count("<span>benign</span><span>melanoma</span>") == 3
    assert 'alt="Synthetic images of the classes benign, melanoma, from the model of round 1"' in page


def test_the_browser_is_told_to_load_no_image_from_elsewhere():
    assert "default-src 'none'; img-src data:;" in render(result(picture(1)))


def test_the_pictures_are_written_as_files(tmp_path):
    written = write_artifacts(result(picture(1), picture(5)), tmp_path)
    assert (tmp_path / "samples" / "round-1.png").read_bytes() == PICTURE
    assert tmp_path / "samples" / "round-5.png" in written
    assert json.loads((tmp_path / "result.json").read_text())["samples"]["rounds"][0] == picture(1)


@pytest.mark.parametrize(
    "entry",
    [
        picture(1, b"<svg onload=alert(1)>"),
        {"round": 1, "png": "not base64"},
        {"round": 1, "png": None},
        {"round": "../1", "png": picture(1)["png"]},
        "nothing",
    ],
)
def test_what_is_no_picture_is_neither_shown_nor_written(entry, tmp_path):
    write_artifacts(result(entry), tmp_path)
    assert "Synthetic images" not in (tmp_path / "report.html").read_text()
    assert not (tmp_path / "samples").exists()


def test_class_names_are_escaped():
    page = render(result(picture(1), classes=["<b>one</b>", '"two']))
    assert "<b>one</b>" not in page
    assert "&lt;b&gt;one&lt;/b&gt;" in page
    assert 'alt="Synthetic images of the classes &lt;b&gt;one&lt;/b&gt;, &#34;two, from' in page


def test_a_result_without_pictures_has_no_such_section():
    assert "Synthetic images" not in render({"name": "x"})
