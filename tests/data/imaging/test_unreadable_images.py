"""Images that cannot be read are counted by cause in one pass, and none is named."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hospitals import command, write
from pictures import cause_of

from v6_algorithm.data.imaging import files
from v6_algorithm.data.imaging.picture import CAUSES
from v6_algorithm.data.imaging.stack import read_stack
from v6_algorithm.errors import DataError
from v6_algorithm.experiment import Image

pillow = pytest.importorskip("PIL.Image")
pydicom = pytest.importorskip("pydicom")

RNG = np.random.default_rng(0)


def test_all_causes_are_counted_in_one_pass_and_name_no_file(tmp_path):
    values = RNG.normal(size=(6, 5)).astype(np.float32)
    np.save(tmp_path / "good.npy", values)
    np.save(tmp_path / "nan.npy", np.where(values > 2, values, np.nan))
    (tmp_path / "cut.npy").write_bytes((tmp_path / "good.npy").read_bytes()[:-9])
    np.save(tmp_path / "volume.npy", np.zeros((3, 4, 5, 6)))
    names = ["good", "nan", "nan", "gone", "cut", "volume", "good"]
    files = [tmp_path / f"{name}.npy" for name in names] + [None]
    with pytest.raises(DataError) as refused:
        read_stack(files, Image(column="x"), None)
    message = str(refused.value)
    for cause, count in (("not_finite", 2), ("missing", 1), ("damaged", 1), ("axes", 1), ("empty", 1)):
        assert f"{count}: {CAUSES[cause]}" in message
    assert str(tmp_path) not in message
    assert "good" not in message
    stack = read_stack(files, Image(column="x", tolerance=0.9), tmp_path / "kept.npy")
    assert stack.causes == {"not_finite": 2, "missing": 1, "damaged": 1, "axes": 1, "empty": 1}
    filled = read_stack(files[:3], Image(column="x", fill=-1), None)
    assert filled.array[1].min() == -1


def spoilt(folder):
    """Write files that are no images, and return their causes by name."""
    good = io.BytesIO()
    pillow.fromarray(RNG.integers(0, 256, (16, 16), dtype=np.uint8)).save(good, "png")
    gif = io.BytesIO()
    pillow.fromarray(np.zeros((4, 4), np.uint8)).save(gif, "gif")
    contents = {
        "zero.png": (b"", "no_bytes"), "page.png": (b"<!DOCTYPE html><html>404</html>", "other_kind"),
        "drawing.png": (b"<svg></svg>", "other_kind"), "zip.tif": (b"PK\3\4" + b"\0" * 99, "other_kind"),
        "pointer.png": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "other_kind"),
        "mac.png": (b"\0\5\x16\7" + b"\0" * 99, "other_kind"), "scan.dcm": (good.getvalue(), "other_kind"),
        "plain.nii.gz": (b"\0" * 344 + b"n+1\0" + b"\0" * 9, "other_kind"),
        "cut.png": (good.getvalue()[:100], "damaged"), "text.npy": (b"1,2,3", "damaged"),
        "animation.gif": (gif.getvalue(), "pictures"), "letter.pdf": (b"%PDF-1.4", "ending"),
    }  # fmt: skip
    for name, (content, _) in contents.items():
        (folder / name).write_bytes(content)
    arrays = {
        "objects.npy": (np.array([{}], dtype=object), "no_numbers"), "words.npy": (np.full((4, 4), "a"), "no_numbers"),
        "complex.npy": (np.ones((4, 4), complex), "complex"), "nothing.npy": (np.zeros((0, 4, 4)), "axes"),
        "series.npy": (np.zeros((2, 3, 4, 4)), "axes"), "gap.npy": (np.array([[np.nan, 1], [0, 1]]), "not_finite"),
        "endless.npy": (np.array([[np.inf, 1], [0, 1]]), "not_finite"),
    }  # fmt: skip
    for name, (values, _) in arrays.items():
        np.save(folder / name, values, allow_pickle=True)
    (folder / "folder.png").mkdir()
    (folder / "link.png").symlink_to(folder / "nowhere.png")
    others = {"folder.png": "folder", "link.png": "missing", "absent.png": "missing", "": "empty"}
    return {name: cause for name, (_, cause) in (contents | arrays).items()} | others


def test_run_validate_and_describe_count_what_cannot_be_read_by_cause_and_name_nothing(tmp_path):
    names = []
    for site in "ab":
        (tmp_path / site).mkdir()
        names = [f"{number}.png" for number in range(30)]
        for name in names:
            pillow.fromarray(RNG.integers(0, 256, (16, 16), dtype=np.uint8)).save(tmp_path / site / name)
        if site == "a":
            causes = spoilt(tmp_path / site)
            names += list(causes)
        pd.DataFrame({"file": names, "y": np.arange(len(names)) % 2}).to_csv(tmp_path / site / "table.csv", index=False)
    image = {"column": "file", "size": [8, 8], "channels": 1, "tolerance": 0.9}
    changes = {
        "sites": {site: f"{site}/table.csv" for site in "ab"}, "data": {"target": "y", "image": image},
        "problem": "image_classification", "model": {"kind": "cnn", "widths": [4]}, "rounds": 1,
    }  # fmt: skip
    file = write(tmp_path, **changes)
    counts = Counter(causes.values())
    for arguments in (["run", file, "--out", tmp_path / "out"], ["validate", file], ["describe", file]):
        done = command(*arguments)
        shown = " ".join(done.output.split())
        assert done.exit_code == 0, done.output
        for cause, count in counts.items():
            said = f"{count} {cause.replace('_', ' ')}" if arguments[0] == "describe" else f"{count}: {CAUSES[cause]}"
            assert said in shown
        assert not [name for name in causes if name and name in shown.replace("table.csv", "")]
    strict = write(tmp_path, **changes | {"data": {"target": "y", "image": image | {"tolerance": 0.0}}})
    refused = command("run", strict, "--out", tmp_path / "again")
    assert refused.exit_code == 2
    assert f"site 'a': {len(causes)} images" in refused.output


def test_a_file_that_may_not_be_read_is_told_as_that(tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(b"x")

    def refuse(*_):
        raise PermissionError(13, "Permission denied", str(tmp_path / "a.png"))

    monkeypatch.setattr(files, "_read", refuse)
    assert cause_of(tmp_path / "a.png") == "permission"


def test_a_picture_of_too_many_pixels_is_told_as_that(tmp_path):
    pillow.new("1", (20_000, 20_000)).save(tmp_path / "a.png")
    assert cause_of(tmp_path / "a.png") == "large"


def test_a_decoder_that_is_not_installed_is_told_with_its_package(tmp_path, monkeypatch):
    from pydicom.pixels.decoders.base import Decoder

    file = Path(pydicom.data.get_testdata_file("MR_small_jpeg_ls_lossless.dcm"))
    monkeypatch.setattr(Decoder, "is_available", property(lambda self: False))
    assert cause_of(file) == "decoder"
    assert "python-gdcm" in CAUSES["decoder"]
