"""The second sample: written after the faults of the first were mended, and counted before anything else was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tools.examine.inputs_files import series
from tools.examine.inputs_metrics import LAST, _against_sklearn, _one_column, _scores, _tested, _wilson, rows_of, run
from tools.examine.inputs_rounds import SLOW, _columns, _hard, _losing, _normalised, _positives, _quantiles, _rare
from tools.examine.inputs_sizes import _as_bytes, _as_deep, _as_png, _site
from tools.examine.inputs_survival import ALL_TRAIN, DEEP, TARGET, _in_two_units, patients, pooled, three
from tools.examine.inputs_survival import run as run_survival
from tools.examine.making import area, canonical, dicom, enhanced, geometry, hospital, item, nifti, png, read, train
from tools.examine.tries import Seen, case, policy, same, true

GENERATOR = np.random.default_rng(30)


def second(kind: str, **wanted: str) -> Any:
    return case(kind, sample="second", **wanted)


def deep(*shape: int, high: int = 4000) -> np.ndarray:
    return GENERATOR.integers(0, high, shape).astype(np.uint16)


# -- B -------------------------------------------------------------------------------------------------------------


@second("B1")
def lut_of_bytes(folder: Path) -> Seen:
    """modality look-up table of 8-bit entries packed as bytes, MONOCHROME2"""
    stored = GENERATOR.integers(0, 6, (4, 5)).astype(np.uint8)
    table = np.array([3, 200, 7, 90, 11, 250], np.uint16)
    lut = item(LUTDescriptor=[6, 0, 16], ModalityLUTType="US", LUTData=table.tobytes())
    lut["LUTDescriptor"].VR = "US"
    lut["LUTData"].VR = "OW"
    dicom(folder / "a.dcm", stored, ModalityLUTSequence=[lut])
    seen, told = read(folder, "a.dcm")
    return same(seen[0, 0], table[stored], told=told)


@second("B1")
def negative_slope(folder: Path) -> Seen:
    """rescale slope -2.5 and intercept 100, signed 8 bits"""
    stored = GENERATOR.integers(-128, 128, (4, 6)).astype(np.int8)
    dicom(folder / "a.dcm", stored, RescaleSlope="-2.5", RescaleIntercept="100")
    seen, told = read(folder, "a.dcm")
    return same(seen[0, 0], stored * -2.5 + 100, told=told)


@second("B1")
def grey_with_transparency(folder: Path) -> Seen:
    """PNG of grey with alpha, channels 1: the grey"""
    from PIL import Image

    values = GENERATOR.integers(0, 256, (5, 6, 2)).astype(np.uint8)
    values[..., 1] = 255
    Image.fromarray(values, mode="LA").save(folder / "a.png")
    seen, told = read(folder, "a.png", channels=1)
    return same(seen[0, 0], values[..., 0] / 255, told=told)


@second("B1")
def exif_of_a_tiff(folder: Path) -> Seen:
    """TIFF with orientation 6 and 16 bits of grey: upright, 0 to 1"""
    from PIL import Image

    values = deep(4, 7, high=65536)
    Image.fromarray(values).save(folder / "a.tif", tiffinfo={274: 6})
    seen, told = read(folder, "a.tif")
    return same(seen[0, 0], np.rot90(values, -1) / 65535, told=told)


@second("B1")
def scaled_nifti(folder: Path) -> Seen:
    """NIfTI of int16 with slope 0.1 and intercept -5: scaled"""
    import nibabel

    stored = GENERATOR.integers(-300, 300, (4, 5, 6)).astype(np.int16)
    image = nibabel.Nifti1Image(stored, np.eye(4))
    image.header.set_slope_inter(0.1, -5)
    image.header.set_data_dtype(np.int16)
    nibabel.save(image, folder / "a.nii.gz")
    wanted = nibabel.load(folder / "a.nii.gz").get_fdata()
    seen, told = read(folder, "a.nii.gz", dimensions=3)
    return same(seen[0, 0], wanted, told=told)


@second("B2", refused="channel|axes")
def four_channels(folder: Path) -> Seen:
    """npy of (20, 30, 4) without channel_axis: refused"""
    np.save(folder / "a.npy", GENERATOR.normal(size=(20, 30, 4)))
    return Seen(None, read(folder, "a.npy")[1])


@second("B2")
def last_axis_said(folder: Path) -> Seen:
    """npy of (3, 9, 3), channel_axis last: three channels from the last axis"""
    values = GENERATOR.normal(size=(3, 9, 3))
    np.save(folder / "a.npy", values)
    seen, told = read(folder, "a.npy", channel_axis="last")
    return same(seen[0], values.transpose(2, 0, 1), told=told)


@second("B2", refused="volume")
def nifti_volume_as_image(folder: Path) -> Seen:
    """NIfTI of (3, 40, 40) in a problem of images: refused, not three channels"""
    nifti(folder / "a.nii", GENERATOR.normal(size=(3, 40, 40)).astype(np.float32), np.eye(4))
    return Seen(None, read(folder, "a.nii", channels=3)[1])


@second("B2", refused="time|several")
def nrrd_of_times(folder: Path) -> Seen:
    """NRRD of kinds domain, domain, domain, time: refused"""
    import nrrd

    header = {
        "space": "left-posterior-superior",
        "kinds": ["domain", "domain", "domain", "time"],
        "space directions": np.array([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [np.nan] * 3]),
    }
    nrrd.write(str(folder / "a.nrrd"), GENERATOR.normal(size=(4, 5, 6, 3)), header)
    return Seen(None, read(folder, "a.nrrd", dimensions=3)[1])


@second("B3")
def cover_of_a_volume(folder: Path) -> Seen:
    """fit cover of 8 x 12 x 16 to 4 x 4 x 4: halved, the middle kept"""
    values = GENERATOR.normal(size=(8, 12, 16)).astype(np.float32)
    nifti(folder / "a.nii", values, np.eye(4))
    seen, told = read(folder, "a.nii", dimensions=3, size=[4, 4, 4], fit="cover")
    return same(seen[0, 0], area(values, (4, 6, 8))[:, 1:5, 2:6], told=told)


@second("B3")
def spacing_of_a_series(folder: Path) -> Seen:
    """a sagittal series of slices, spacing 1: as the NIfTI of it"""
    volume, turn = deep(6, 9, 8), (0, 1, 0, 0, 0, -1)
    series(folder, "p1", volume, turn, 3.0)
    affine = geometry(turn, (0.5, 0.75), 3.0, (0, 0, 0))
    nifti(folder / "b.nii.gz", (volume.transpose(2, 1, 0) - 1024.0).astype(np.float32), affine)
    one, told = read(folder, "p1", dimensions=3, spacing=[1, 1, 1])
    other, _ = read(folder, "b.nii.gz", dimensions=3, spacing=[1, 1, 1])
    return same(one, other, within=1e-4, told=told)


@second("B3")
def spacing_leaves_alike(folder: Path) -> Seen:
    """spacing that is the file's own: the values as stored"""
    values = GENERATOR.normal(size=(5, 6, 7)).astype(np.float32)
    nifti(folder / "a.nii", values, np.diag([1.5, 1.5, 3.0, 1]))
    seen, told = read(folder, "a.nii", dimensions=3, spacing=[1.5, 1.5, 3])
    return same(seen[0, 0], values, told=told)


@second("B4", told="fold|alike|range")
def described_deep(folder: Path) -> Seen:
    """describe of PNG at one site and 12-bit npy at the other: told"""
    import v6_algorithm.api as v6

    sites = {"a": _site(folder, "a", _as_png), "b": _site(folder, "b", _as_deep)}
    keys = {"data": {"target": "label", "image": {"column": "file"}}, "problem": "image_classification", "model": "cnn"}
    return Seen(None, "; ".join(v6.describe(keys, sites).notes))


@second("B4")
def alike_by_range(folder: Path) -> Seen:
    """bytes of npy with range 0 to 255 at both sites: nothing is told of unlike values"""
    sites = {"a": _site(folder, "a", _as_bytes), "b": _site(folder, "b", _as_bytes)}
    notes = "; ".join(train(sites, range=[0, 255]).notes)
    return true("fold" not in notes and "where their values lie" not in notes, notes)


@second("B4")
def crop_of_negative_values(folder: Path) -> Seen:
    """float npy below 0, fit crop, no range: filled up with the lowest value, not 0"""
    values = GENERATOR.normal(-50, 2, size=(4, 4))
    np.save(folder / "a.npy", values)
    seen, told = read(folder, "a.npy", size=[6, 6], fit="crop")
    return same(seen[0, 0], np.pad(values, 1, constant_values=values.min()), within=1e-4, told=told)


@second("B5", refused="cut short|damaged")
def cut_series(folder: Path) -> Seen:
    """a series one of whose slices is cut short: refused as that"""
    series(folder, "p1", deep(5, 6, 7), (1, 0, 0, 0, 1, 0), 2.0)
    path = folder / "p1" / "IM0002"
    path.write_bytes(path.read_bytes()[:-30])
    return Seen(None, read(folder, "p1", dimensions=3)[1])


@second("B5", refused="several DICOM series")
def two_series(folder: Path) -> Seen:
    """a folder of two series, in two folders below: refused, the remedy named"""
    for name in ("one", "two"):
        series(folder, name, deep(4, 5, 6), (1, 0, 0, 0, 1, 0), 2.0)
    (folder / "p1").mkdir()
    for name in ("one", "two"):
        (folder / name).rename(folder / "p1" / name)
    return Seen(None, read(folder, "p1", dimensions=3)[1])


@second("B5", refused="something else|numbers")
def text_npy(folder: Path) -> Seen:
    """npy of words: refused as no numbers"""
    np.save(folder / "a.npy", np.array([["a", "b"], ["c", "d"]]))
    return Seen(None, read(folder, "a.npy")[1])


@second("B5", refused="0 bytes|cut short")
def empty_gzip(folder: Path) -> Seen:
    """.nii.gz that is a gzip of nothing: refused as damaged"""
    import gzip

    (folder / "a.nii.gz").write_bytes(gzip.compress(b""))
    return Seen(None, read(folder, "a.nii.gz", dimensions=3)[1])


@second("B6")
def cox_in_hours(folder: Path) -> Seen:
    """a Cox network in days and in hours, pooled baseline: the same metrics and survival"""
    return _in_two_units(DEEP | {"problem": {"kind": "survival", "baseline": "pooled"}}, 24.0)


@second("B6")
def discrete_in_femtodays(folder: Path) -> Seen:
    """discrete time in units of 1e15 days: the same"""
    keys = DEEP | {"problem": {"kind": "survival", "method": "discrete_time", "intervals": 4}}
    return _in_two_units(keys, 1e-15)


@second("B7")
def series_and_nifti(folder: Path) -> Seen:
    """one patient's volume as a series of DICOM with a DICOMDIR and a report beside it: the same tensor as its NIfTI"""
    volume, turn = deep(5, 6, 7), (0.6, 0.8, 0, 0, 0, -1)
    series(folder, "p1", volume, turn, 2.0)
    (folder / "p1" / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM")
    (folder / "p1" / "report.txt").write_text("x")
    affine = geometry(turn, (0.5, 0.75), 2.0, (0, 0, 0))
    nifti(folder / "p2.nii.gz", (volume.transpose(2, 1, 0) - 1024.0).astype(np.float32), affine)
    seen, told = read(folder, ["p1", "p2.nii.gz"], dimensions=3)
    return same(seen[0], seen[1], told=told)


@second("B7")
def trains_on_series(folder: Path) -> Seen:
    """two hospitals with a series a patient: trains, and says that slices were put together"""
    sites = {}
    for name in ("a", "b"):
        place = folder / name
        place.mkdir()
        for number in range(16):
            series(place, f"p{number}", deep(4, 6, 6), (1, 0, 0, 0, 1, 0), 2.0)
        lines = [f"p{number},{number % 2}" for number in range(16)]
        (place / "t.csv").write_text("file,label\n" + "\n".join(lines) + "\n")
        sites[name] = str(place)
    notes = "; ".join(train(sites, dimensions=3).notes)
    return true("put together" in notes, notes)


@second("B7")
def webp_without_ending(folder: Path) -> Seen:
    """WEBP and BMP without an ending, by their first bytes"""
    from PIL import Image

    values = GENERATOR.integers(0, 256, (2, 5, 6, 3)).astype(np.uint8)
    Image.fromarray(values[0]).save(folder / "one", format="WEBP", lossless=True)
    Image.fromarray(values[1]).save(folder / "two", format="BMP")
    seen, told = read(folder, ["one", "two"])
    return same(seen, values.transpose(0, 3, 1, 2) / 255, told=told)


@second("B7")
def enhanced_as_folder(folder: Path) -> Seen:
    """a folder with one enhanced CT in it: that volume"""
    (folder / "p1").mkdir()
    volume = deep(4, 5, 6)
    enhanced(folder / "p1" / "a.dcm", volume, shared=(1.0, 0.0))
    affine = geometry((1, 0, 0, 0, 1, 0), (1, 1), 2.0, (0, 0, 0))
    seen, told = read(folder, "p1", dimensions=3)
    return same(seen[0], canonical(volume.transpose(2, 1, 0), affine), told=told)


@second("B7", refused="several")
def two_views_in_a_folder(folder: Path) -> Seen:
    """a folder with two radiographs in a problem of images: refused, the remedy named"""
    (folder / "p1").mkdir()
    dicom(folder / "p1" / "pa", deep(5, 6))
    dicom(folder / "p1" / "lateral", deep(5, 6))
    return Seen(None, read(folder, "p1")[1])


# -- C -------------------------------------------------------------------------------------------------------------


@second("C1")
def discrete_of_quarters(folder: Path) -> Seen:
    """quarters of a year, all leave at the end of quarter 4: S(4) is the share without an event"""
    import pandas as pd

    generator = np.random.default_rng(8)
    tables = {}
    for name in ("a", "b"):
        event = np.ceil(generator.exponential(6, 200))
        tables[name] = pd.DataFrame(
            {"z": generator.integers(0, 2, 200), "t": np.minimum(event, 4), "d": (event <= 4) * 1}
        )
    keys = {
        "data": {"target": TARGET, "features": ["z"]},
        "model": "linear",
        "rounds": 80,
        "problem": {"kind": "survival", "method": "discrete_time", "intervals": [1, 2, 3, 4]},
        "training": {"optimizer": {"kind": "sgd", "lr": 0.5}, "local_epochs": 4, "batch_size": None},
        **ALL_TRAIN,
    }
    result, whole = run_survival(keys, tables), pd.concat(tables.values())
    return same(result.predict(whole, times=[4]).iloc[:, 1].mean(), 1 - whole["d"].mean(), within=0.012)


@second("C2")
def repeats_keep_n(folder: Path) -> Seen:
    """three repeats of three folds: accuracy is the mean over repeats of pooled accuracies, n one table's rows"""
    result = run(
        {"split": {"kind": "kfold", "folds": 3, "repeats": 3}}, {name: rows_of(50, s) for s, name in enumerate("ab")}
    )
    found = pooled(result)
    return true(found["n"] == 100 and found["accuracy_high"] - found["accuracy_low"] > 0.1, found)


def _glm(tables: dict[str, Any], model: Any, problem: str = "classification", **data: Any) -> Any:
    import v6_algorithm.api as v6

    return v6.run({"data": {"target": "y", **data}, "model": model, "problem": problem}, sites=tables)


@second("C3")
def cox_categories(folder: Path) -> Seen:
    """model cox with a category of three values and ties: lifelines' estimates against the first"""
    import pandas as pd
    from lifelines import CoxPHFitter

    tables = {}
    for seed, name in enumerate("ab"):
        frame = patients(120, seed).drop(columns="x")
        frame["stage"] = np.random.default_rng(seed).choice(["I", "II", "III"], 120)
        tables[name] = frame.assign(t=np.ceil(frame["t"] / 40))
    result = run_survival({"data": {"target": TARGET, "categorical": ["stage"]}, "model": "cox"}, tables)
    whole = pd.get_dummies(pd.concat(tables.values()), columns=["stage"], dtype=float).drop(columns="stage_I")
    fit = CoxPHFitter().fit(whole, "t", "d")
    ours = result.coefficients.loc[["z", "stage=II", "stage=III"], "estimate"]
    return same(ours, fit.params_[["z", "stage_II", "stage_III"]], within=1e-3)


@second("C3", told="reference")
def cox_reference_without_events(folder: Path) -> Seen:
    """model cox whose reference category has no event: the reference is named"""
    tables = {}
    for seed, name in enumerate("ab"):
        frame = patients(120, seed).assign(arm=np.random.default_rng(seed).choice(["a", "b", "c"], 120))
        frame.loc[frame["arm"] == "a", "d"] = 0
        tables[name] = frame
    notes = run_survival({"data": {"target": TARGET, "categorical": ["arm"]}, "model": "cox"}, tables).notes
    return Seen(None, "; ".join(note for note in notes if "arm=a" in note))


@second("C3", told="reference")
def glm_reference_of_two(folder: Path) -> Seen:
    """logistic model whose reference has cases only, beside a second category: the reference is named"""
    tables = {}
    for seed, name in enumerate("abc"):
        frame = rows_of(150, seed)
        generator = np.random.default_rng(seed)
        frame = frame.assign(ward=generator.choice(list("abcd"), 150), sex=generator.choice(["f", "m"], 150))
        frame.loc[frame["ward"] == "a", "y"] = 1
        tables[name] = frame
    result = _glm(tables, "glm", categorical=["ward", "sex"])
    return Seen(None, "; ".join(note for note in result.notes if "ward=a" in note))


@second("C3")
def glm_of_pooled_rows(folder: Path) -> Seen:
    """logistic regression with a category, three sites: statsmodels' estimates and errors"""
    import pandas as pd
    import statsmodels.api as sm

    tables = {
        name: rows_of(130, s).assign(w=np.random.default_rng(s).choice(list("pqr"), 130))
        for s, name in enumerate("abc")
    }
    result = _glm(tables, "glm", categorical=["w"])
    whole = pd.get_dummies(pd.concat(tables.values()), columns=["w"], dtype=float)
    fit = sm.Logit(whole["y"], sm.add_constant(whole[["a", "b", "w_q", "w_r"]])).fit(disp=0)
    ours = result.coefficients.loc[["(intercept)", "a", "b", "w=q", "w=r"]]
    return same([*ours["estimate"], *ours["standard_error"]], [*fit.params, *fit.bse], within=1e-4)


@second("C4")
def two_groups_far_apart(folder: Path) -> Seen:
    """half around -1e5, half around 1e-5: quantiles of the pooled rows"""
    return _quantiles(
        _columns(lambda g, rows: np.where(g.random(rows) < 0.5, -1e5, 1e-5) * (1 + 0.1 * g.random(rows))), within=0.2
    )


@second("C4")
def constant_column(folder: Path) -> Seen:
    """all but a tenth of the values are 7: quantiles of the pooled rows, inside the range"""
    return _quantiles(_columns(lambda g, rows: np.where(g.random(rows) < 0.9, 7.0, g.normal(7, 3, rows))), within=0.3)


@second("C4")
def strict_tails(folder: Path) -> Seen:
    """policy standard, lognormal with sigma 4: bounds hold"""
    return _quantiles(_columns(lambda g, rows: g.lognormal(0, 4, rows)), preset="standard")


@second("C5")
def crowded_at_one_end(folder: Path) -> Seen:
    """scores that crowd at one end (an exponential column, steep model): AUROC and AUPRC of scikit-learn"""
    tables = {}
    for seed, name in enumerate("ab"):
        frame = _scores(350, seed)
        tables[name] = frame.assign(s=np.exp(2 * frame["s"]))
    return _against_sklearn(tables)


@second("C5")
def all_alike(folder: Path) -> Seen:
    """a column of one value in test rows: AUROC 0.5, AUPRC the prevalence"""
    tables = {
        name: _scores(200, s).assign(s=lambda frame: np.where(frame["s"] > 9, 1.0, 2.0)) for s, name in enumerate("ab")
    }
    for frame in tables.values():
        frame.loc[0, "s"] = 1.0
    return _against_sklearn(tables, within=2e-3)


@second("C5")
def cox_barely_trained(folder: Path) -> Seen:
    """a Cox network after one small step, so that risks hardly differ: lifelines' C-index within 0.005"""
    import pandas as pd
    from lifelines.utils import concordance_index

    tables = {
        name: patients(180, s).assign(part=lambda frame: np.where(np.arange(len(frame)) % 2, "test", "train"))
        for s, name in enumerate("ab")
    }
    keys = {
        "model": "linear",
        "rounds": 1,
        "training": {"optimizer": {"kind": "sgd", "lr": 0.001}, "batch_size": None},
        "data": {"target": TARGET, "split_column": "part", "features": ["x", "z"]},
        "split": {"kind": "given"},
        **LAST,
    }
    result = run_survival(keys, tables)
    test = pd.concat([frame[frame["part"] == "test"] for frame in tables.values()])
    wanted = concordance_index(test["t"], -result.predict(test)["log_risk"], test["d"])
    return same(pooled(result)["c_index"], wanted, within=5e-3)


@second("C6")
def rare_and_perfect(folder: Path) -> Seen:
    """five positives of 60, all found: recall 1 with Wilson's interval"""
    import pandas as pd

    tables = {}
    for name in "ab":
        y = np.repeat([1, 0], [5, 55])
        frame = pd.DataFrame({"s": np.where(y == 1, 4.0, -4.0), "y": y, "part": "train"})
        tables[name] = pd.concat([frame, frame.assign(part="test")], ignore_index=True)
    found = _tested(tables, rounds=40)
    return same([found["recall"], found["recall_low"], found["recall_high"]], [1.0, *_wilson(10, 10)], within=1e-6)


@second("C6")
def f1_by_wilson(folder: Path) -> Seen:
    """F1's interval is that of TP / (TP + FP + FN) carried over"""
    result, y, _ = _one_column({name: _scores(120, s) for s, name in enumerate("ab")})
    found, ends = pooled(result), None
    share = found["f1"] / (2 - found["f1"])
    rows = found["n"]
    for total in range(1, rows + 1):
        if abs(round(share * total) / total - share) < 1e-9:
            low, high = _wilson(round(share * total), total)
            candidate = [2 * low / (1 + low), 2 * high / (1 + high)]
            if abs(candidate[0] - found["f1_low"]) < 1e-6:
                ends = candidate
    return true(ends is not None and abs(ends[1] - found["f1_high"]) < 1e-6, f"{found['f1_low']} {ends} {len(y)}")


@second("C7")
def late_replies_and_the_best(folder: Path) -> Seen:
    """an easy site misses rounds 4 and 5: the best round is a late one"""
    content = _losing(SLOW, _hard(), lambda site, number: site == "a" and number in (4, 5))
    return true(content["best_round"] > 5, content["best_round"], "; ".join(content["notes"]))


@second("C8")
def dealing_by_group(folder: Path) -> Seen:
    """15 hospitals with two positive patients of three rows: some in test, all rows of a patient in one part"""
    tables = {}
    for number, frame in enumerate(_rare(15, 0, rows=60).values()):
        frame = frame.assign(patient=np.arange(60) // 3)
        frame.loc[frame["patient"].isin([number % 20, (number + 7) % 20]), "y"] = 1
        tables[f"s{number}"] = frame
    count = _positives(run({"rounds": 1, "data": {"target": "y", "group": "patient"}}, tables))
    return true(count % 3 == 0 and 3 <= count <= 45, count)


@second("C9", told="carry all weight")
def agnostic_says_so(folder: Path) -> Seen:
    """agnostic: the result says that one site may carry all weight, and what each weighed"""
    return Seen(None, "; ".join(run({"strategy": "agnostic", "rounds": 5}, _hard()).notes))


@second("C10")
def moments_of_three(folder: Path) -> Seen:
    """BatchNorm at sites of 200 and 40 rows, FedProx: the running variance is that of all rows"""
    import pandas as pd

    mean, variance, tables = _normalised({"kind": "fedprox", "mu": 0.01}, (200, 40))
    a = pd.concat(tables.values())["a"]
    return same([mean[0], variance[0]], [a.mean(), a.var()], within=0.02)


@second("C10")
def unknown_in_a_new_table(folder: Path) -> Seen:
    """predict for a category that no site has: a warning, and a finite prediction"""
    tables = {
        name: rows_of(60, s).assign(c=np.random.default_rng(s).choice(["p", "q"], 60)) for s, name in enumerate("ab")
    }
    result = run({"data": {"target": "y", "categorical": ["c"]}}, tables)
    seen = result.predict(tables["a"].head(4).assign(c="new"))
    notes = "; ".join(seen.attrs["notes"])
    return true(np.isfinite(seen.iloc[:, 0].to_numpy(dtype=float)).all() and "no site" in notes, notes)


@second("C11")
def report_names_the_plug_in(folder: Path) -> Seen:
    """a report of a network of one's own under policy standard: no word of a built-in network, no NaN"""
    from torch import nn

    import v6_algorithm.api as v6

    result = v6.run(
        {"data": {"target": "y"}, "rounds": 1},
        {name: rows_of(80, s) for s, name in enumerate("ab")},
        model=nn.Linear(2, 2),
    )
    result.save(folder / "run")
    page = next((folder / "run").glob("*.html")).read_text()
    return true("mlp" not in page and ">nan<" not in page, page.find("mlp"))


@second("C11")
def standard_survival_report(folder: Path) -> Seen:
    """a Cox network under policy standard: what is joined or withheld is said"""
    with policy("standard"):
        result = run_survival(DEEP, three())
    notes = "; ".join(result.notes)
    return true("joined" in notes or "withheld" in notes, notes)


@second("B1")
def colours_of_a_series(folder: Path) -> Seen:
    """RGB slices of a cryosection as a series: a volume of three channels"""
    from pydicom.uid import generate_uid

    (folder / "p1").mkdir()
    colours, uid = GENERATOR.integers(0, 256, (4, 5, 6, 3)).astype(np.uint8), generate_uid()
    for number in range(4):
        dicom(
            folder / "p1" / f"{9 - number}.dcm",
            colours[number],
            SeriesInstanceUID=uid,
            ImagePositionPatient=["0", "0", str(3.0 * number)],
            ImageOrientationPatient=["1", "0", "0", "0", "1", "0"],
            PixelSpacing=["1", "1"],
        )
    seen, told = read(folder, "p1", dimensions=3)
    return same(seen[0], colours.transpose(3, 2, 1, 0)[:, ::-1, ::-1], told=told)


@second("B5", refused="evenly|one is missing")
def series_of_two_distances(folder: Path) -> Seen:
    """a series of 1 mm slices that goes on with 5 mm ones: refused by name"""
    from pydicom.uid import generate_uid

    (folder / "p1").mkdir()
    uid = generate_uid()
    for number, place in enumerate((0, 1, 2, 3, 8, 13)):
        dicom(
            folder / "p1" / f"{number}.dcm",
            deep(5, 6),
            SeriesInstanceUID=uid,
            ImagePositionPatient=["0", "0", str(place)],
            ImageOrientationPatient=["1", "0", "0", "0", "1", "0"],
            PixelSpacing=["1", "1"],
        )
    return Seen(None, read(folder, "p1", dimensions=3)[1])


@second("B2")
def png_in_a_volume_problem(folder: Path) -> Seen:
    """a TIFF of four planes in a problem of volumes: planes first"""
    from PIL import Image

    planes = GENERATOR.integers(0, 256, (4, 6, 7)).astype(np.uint8)
    pages = [Image.fromarray(plane) for plane in planes]
    pages[0].save(folder / "a.tif", save_all=True, append_images=pages[1:])
    seen, told = read(folder, "a.tif", dimensions=3)
    return same(seen[0, 0], planes / 255, told=told)


@second("B5", told="left out")
def one_bad_series(folder: Path) -> Seen:
    """of 40 patients' series one has a gap, tolerance 5 %: left out, counted by that cause"""
    sites = {}
    for name in ("a", "b"):
        place = folder / name
        place.mkdir()
        for number in range(24):
            skip = 2 if (name, number) == ("a", 5) else -1
            series(place, f"p{number}", deep(5, 5, 5), (1, 0, 0, 0, 1, 0), 2.0, skip=skip)
        (place / "t.csv").write_text("file,label\n" + "".join(f"p{n},{n % 2}\n" for n in range(24)))
        sites[name] = str(place)
    notes = "; ".join(train(sites, dimensions=3, tolerance=0.05).notes)
    return Seen("evenly spaced" in notes, notes)


@second("B4")
def masks_at_one_site(folder: Path) -> Seen:
    """1-bit PNG at one site and bytes of 0 and 255 as PNG at the other: the same tensor"""
    mask = GENERATOR.integers(0, 2, (6, 8)).astype(bool)
    png(folder / "a.png", mask, 0, 1)
    png(folder / "b.png", mask.astype(np.uint8) * 255, 0, 8)
    seen, told = read(folder, ["a.png", "b.png"])
    return same(seen[:, 0], np.stack([mask, mask]), told=told)


@second("B7", told="mask")
def mask_beside_series(folder: Path) -> Seen:
    """images p1 and p1_seg named by the table: told that one is called as a mask"""
    images = [
        (f"p{n // 2}{'_seg' if n % 2 else ''}.png", lambda path: png(path, deep(6, 6, high=255), 0, 8))
        for n in range(32)
    ]
    sites = {name: hospital(folder, name, images, [n // 2 % 2 for n in range(32)]) for name in ("a", "b")}
    return Seen(None, "; ".join(train(sites).notes))


@second("B1")
def lossless_colours(folder: Path) -> Seen:
    """RGB DICOM as RLE, channels 1: the luma of PNG"""
    from tools.examine.making import transcoded

    colours = GENERATOR.integers(0, 256, (8, 8, 3)).astype(np.uint8)
    transcoded(dicom(folder / "a.dcm", colours), "1.2.840.10008.1.2.5")
    seen, told = read(folder, "a.dcm", channels=1)
    return same(seen[0, 0], colours @ np.array([0.299, 0.587, 0.114]), within=0.005, told=told)


@second("B3")
def enlarges_a_volume(folder: Path) -> Seen:
    """3 x 4 x 5 to 6 x 8 x 5: torch's trilinear interpolation"""
    import torch

    values = GENERATOR.normal(size=(3, 4, 5)).astype(np.float32)
    nifti(folder / "a.nii", values, np.eye(4))
    seen, told = read(folder, "a.nii", dimensions=3, size=[6, 8, 5])
    wanted = torch.nn.functional.interpolate(torch.tensor(values)[None, None], (6, 8, 5), mode="trilinear")
    return same(seen[0], wanted[0].numpy(), told=told)


@second("B6")
def months_at_one_site_under_standard(folder: Path) -> Seen:
    """times in days and in years of 365.25 days at two sites under policy standard: told as unlike units"""
    tables = three()
    tables["b"] = tables["b"].assign(t=tables["b"]["t"] / 365.25)
    with policy("standard"):
        notes = "; ".join(run_survival(DEEP, tables).notes)
    return true("unit" in notes, notes)


@second("C4")
def counts_with_ties(folder: Path) -> Seen:
    """Poisson counts of mean 3: quantiles of the pooled rows"""
    return _quantiles(_columns(lambda g, rows: g.poisson(3, rows)), within=0.5)


@second("C8")
def four_folds_of_rare(folder: Path) -> Seen:
    """four folds, one positive a site at 12 sites: each tested once"""
    count = _positives(run({"rounds": 1, "split": {"kind": "kfold", "folds": 4}}, _rare(12, 1, rows=40)))
    return true(count == 12, count)


@second("C6")
def accuracy_of_eleven(folder: Path) -> Seen:
    """a test part of 22 rows, 3 wrong: accuracy with Wilson's interval"""
    from tools.examine.inputs_metrics import _separated

    found = _tested({"a": _separated(12, wrong=3), "b": _separated(10)})
    return same(
        [found["accuracy"], found["accuracy_low"], found["accuracy_high"]], [19 / 22, *_wilson(19, 22)], within=1e-6
    )


@second("C3")
def firth_of_a_separated_reference(folder: Path) -> Seen:
    """Firth's penalty where the reference has no case: finite estimates, no word of separation"""
    tables = {}
    for seed, name in enumerate("ab"):
        frame = rows_of(100, seed).assign(w=np.random.default_rng(seed).choice(list("abc"), 100))
        frame.loc[frame["w"] == "a", "y"] = 0
        tables[name] = frame
    result = _glm(tables, {"kind": "glm", "firth": True}, categorical=["w"])
    frame = result.coefficients.drop(index="w=a")
    return true(
        np.isfinite(frame["estimate"].astype(float)).all() and not any("separation" in n for n in result.notes), frame
    )
