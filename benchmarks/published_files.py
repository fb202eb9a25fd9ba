"""Real files as packages publish them, each read by v6_algorithm and compared with the reference library's values.

    python benchmarks/published_files.py [tables] [fits] [images]

Tables are those that lifelines, scikit-learn, statsmodels and, where they are installed, scikit-survival ship,
against the library's own loader; Cox models of the survival sets among them against lifelines' fit; images those of
pydicom, nibabel and scikit-image, compared as tests/data/imaging/test_shipped_images.py does. A file may be equal,
refused in one clear line (which is printed with the reason), or different, which is a fault. What is not installed is
said.
"""

from __future__ import annotations

import importlib
import re
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from v6_algorithm.data.sources import TableSource
from v6_algorithm.errors import DataError
from v6_algorithm.experiment.table_form import TableForm

TESTS = Path(__file__).resolve().parents[1] / "tests" / "data" / "imaging"
# Survival sets of lifelines: time and event, and columns that are numbers.
SURVIVAL = {
    "rossi": ("week", "arrest"),
    "gbsg2": ("time", "cens"),
    "larynx": ("time", "death"),
    "kidney_transplant": ("time", "death"),
    "lymph_node": ("survtime", "censdead"),
    "lung": ("time", "status"),
    "stanford_heart_transplants": ("stop", "event"),
}


def main() -> None:
    """Print counts by package and kind, and every file that is not equal."""
    warnings.simplefilter("ignore")
    counts: dict[tuple[str, str], Counter[str]] = {}
    parts = {"tables": tables, "fits": fits, "images": images}
    for package, kind, name, outcome in chain.from_iterable(parts[part]() for part in sys.argv[1:] or parts):
        counts.setdefault((package, kind), Counter())[outcome.split(":")[0]] += 1
        if outcome != "equal":
            print(f"  {package} {kind} {name}: {outcome}")
    print(f"{'package':16} {'kind':12} {'tried':>6} {'equal':>6} {'refused':>8} {'different':>10}")
    for (package, kind), counted in counts.items():
        row = [counted.total(), *(counted[key] for key in ("equal", "refused", "different"))]
        print(f"{package:16} {kind:12} {row[0]:6} {row[1]:6} {row[2]:8} {row[3]:10}")
    total = sum(counts.values(), Counter[str]())
    print(f"{'all':29} {total.total():6} {total['equal']:6} {total['refused']:8} {total['different']:10}")


def tables() -> Iterator[tuple[str, str, str, str]]:
    """Compare tables with what their library's loader gives."""
    for package, found in (("lifelines", lifelines()), ("scikit-learn", scikit_learn()), ("statsmodels", models())):
        for file, load in found:
            yield package, "tables", file.name, compared(file, load)
    if find_spec("sksurv") is None:
        print("  scikit-survival is not installed")
        return
    for file in sorted((Path(str(find_spec("sksurv").origin)).parent / "datasets" / "data").glob("*")):  # type: ignore[union-attr]
        if file.suffix == ".csv":
            yield "scikit-survival", "tables", file.name, compared(file, lambda file=file: pd.read_csv(file))


def lifelines() -> Iterator[tuple[Path, Callable[[], pd.DataFrame]]]:
    """Return the files of lifelines that have a loader; it is asked which file it reads."""
    sets = importlib.import_module("lifelines.datasets")
    folder = Path(str(sets.__file__)).parent
    original = sets._load_dataset  # type: ignore[attr-defined]
    for name in sorted(vars(sets)):
        if not name.startswith("load_"):
            continue
        asked: list[str] = []

        def note(file: str, asked: list[str] = asked, **options: Any) -> pd.DataFrame:
            asked.append(file)
            return original(file, **options)

        sets._load_dataset = note  # type: ignore[attr-defined]
        # Some take arguments, or make their table.
        with suppress(Exception):
            frame = getattr(sets, name)()
            if len(asked) == 1 and isinstance(frame, pd.DataFrame):
                yield folder / asked[0], lambda frame=frame: frame.reset_index(drop=True)
        sets._load_dataset = original  # type: ignore[attr-defined]


def scikit_learn() -> Iterator[tuple[Path, Callable[[], pd.DataFrame]]]:
    """Return scikit-learn's files with their arrays by NumPy; the first line of some is a count and not a header."""
    folder = Path(str(importlib.import_module("sklearn").__file__)).parent / "datasets" / "data"
    sets = importlib.import_module("sklearn.datasets")
    for name in ("breast_cancer", "iris", "wine_data"):
        loaded = getattr(sets, f"load_{name.removesuffix('_data')}")()
        values = np.column_stack([loaded.data, loaded.target])
        yield folder / f"{name}.csv", lambda values=values: pd.DataFrame(values)
    linnerud = sets.load_linnerud(as_frame=True)
    yield folder / "linnerud_exercise.csv", lambda: linnerud.data
    yield folder / "linnerud_physiological.csv", lambda: linnerud.target
    yield folder / "digits.csv.gz", lambda: pd.DataFrame(np.loadtxt(folder / "digits.csv.gz", delimiter=","))


def models() -> Iterator[tuple[Path, Callable[[], pd.DataFrame]]]:
    """Return the files of statsmodels with its loaders' tables."""
    folder = Path(str(importlib.import_module("statsmodels.datasets").__file__)).parent
    for file in sorted(folder.glob("*/*.csv")):
        module = importlib.import_module(f"statsmodels.datasets.{file.parent.name}")
        if len(list(file.parent.glob("*.csv"))) == 1 and hasattr(module, "load_pandas"):
            yield file, lambda module=module: module.load_pandas().data.reset_index(drop=True)


def compared(file: Path, load: Callable[[], pd.DataFrame]) -> str:
    """Read a file as a researcher does who follows what a refusal suggests, and compare all cells that both have."""
    try:
        ours = read(file)
    except DataError as error:
        return f"refused: {error}"
    theirs = load()
    if len(ours) != len(theirs):
        # A file without a header line: its first row is names here, as `describe` says.
        return f"refused: {len(ours)} rows for {len(theirs)}: no header line" if headless(ours) else "different: rows"
    ours = ours.set_axis([str(name).strip("'") for name in ours.columns], axis=1)
    numbered = isinstance(theirs.columns, pd.RangeIndex)
    pairs = [(str(name), str(name)) for name in theirs.columns if str(name) in ours.columns and not numbered]
    if not pairs:
        if ours.shape[1] != theirs.shape[1]:
            return "different: columns"
        pairs = list(zip(ours.columns, map(str, theirs.columns), strict=True))
    theirs = theirs.set_axis(map(str, theirs.columns), axis=1)
    for mine, other in pairs:
        if not same(ours[mine], theirs[other]):
            return f"different: column {mine}"
    return "equal"


def read(file: Path) -> pd.DataFrame:
    """Read a file; where its separator or encoding is suggested, with that."""
    form = TableForm()
    for _ in range(3):
        try:
            return TableSource(str(file), "csv", form=form).read()
        except DataError as error:
            if mark := re.search(r'data\.separator: "(.+?)"', str(error)):
                form = TableForm(separator=mark[1].replace("\\t", "\t"), encoding=form.encoding)
            elif encoding := re.search(r"data\.encoding: (\S+) may", str(error)):
                form = TableForm(separator=form.separator, encoding=encoding[1])
            else:
                raise
    raise DataError("its form is not found")


def headless(frame: pd.DataFrame) -> bool:
    """Say whether the names of columns are numbers, which a message then says."""
    return any(re.fullmatch(r"[-+]?[\d.]+(e[+-]?\d+)?", str(name)) for name in frame.columns)


def same(mine: pd.Series, other: pd.Series) -> bool:
    """Compare two columns, as numbers where both are, else as text; empty cells are equal."""
    first, second = (
        pd.to_numeric(column, errors="coerce").to_numpy(float, na_value=np.nan) for column in (mine, other)
    )
    if np.isnan(second).sum() == other.isna().sum():
        return bool(np.allclose(first, second, rtol=1e-12, equal_nan=True))
    left, right = (column.astype(object).where(column.notna(), "").astype(str).str.strip() for column in (mine, other))
    return bool((left == right).all())


def fits() -> Iterator[tuple[str, str, str, str]]:
    """Fit Cox models of the survival sets here and by lifelines."""
    import v6_algorithm.api as v6

    sets, fitter = importlib.import_module("lifelines.datasets"), importlib.import_module("lifelines").CoxPHFitter
    for name, (time, event) in SURVIVAL.items():
        if not hasattr(sets, f"load_{name}"):
            continue
        frame = getattr(sets, f"load_{name}")().select_dtypes("number").dropna()
        columns = [column for column in frame if column not in (time, event)][:6]
        frame = frame[[time, event, *columns]].astype(float).reset_index(drop=True)
        zeros = int((frame[time] == 0).sum())
        expected = fitter().fit(frame, time, event, fit_options={"precision": 1e-12}).params_
        # Half of the rows at each of two hospitals, and all of them train.
        given = frame.sample(frac=1, random_state=0).reset_index(drop=True).assign(part="train")
        halves = {"even": given.iloc[::2], "odd": given.iloc[1::2]}
        target = {"duration": time, "event": event}
        content = {
            "data": {"target": target, "features": columns, "split_column": "part"},
            "problem": "survival",
            "model": {"kind": "cox", "strata": "none"},
            "split": "given",
        }
        try:
            result = v6.run(content, halves)
        except Exception as error:
            yield "lifelines", "Cox fits", name, f"refused: {error}"
            continue
        close = np.allclose(result.coefficients["estimate"], expected[columns], rtol=1e-4, atol=1e-7)
        yield "lifelines", "Cox fits", f"{name} ({zeros} times of 0)", "equal" if close else "different: coefficients"


def images() -> Iterator[tuple[str, str, str, str]]:
    """Compare images as the tests do, whose failures are differences; what they expect to be refused is."""
    sys.path.insert(0, str(TESTS))
    shipped = importlib.import_module("test_shipped_images")
    kinds: dict[str, tuple[list[Path], Callable[[Path], None], int]] = {
        "pydicom": (shipped.dicom_files(), shipped.test_a_dicom_file_of_pydicom_has_pydicoms_values, 2),
        "nibabel": (shipped.NIBABEL, shipped.test_a_nifti_file_of_nibabel_has_nibabels_values, 3),
        "scikit-image": (
            shipped.skimage_files(),
            shipped.test_a_picture_of_scikit_image_has_the_values_that_it_reads,
            2,
        ),
    }
    for package, (files, compare, dimensions) in kinds.items():
        if not files:
            print(f"  {package} is not installed")
        for file in files:
            try:
                compare(file)
            except BaseException as error:
                skipped = type(error).__name__ == "Skipped"
                yield package, "images", file.name, "not compared: no reader" if skipped else "different: values"
            else:
                read_as = shipped.ours(file, dimensions)
                yield package, "images", file.name, f"refused: {read_as}" if isinstance(read_as, str) else "equal"


if __name__ == "__main__":
    main()
