"""The house: imports go down the list of wings, files form no circle, and nothing heavy is imported early."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from tools.house import PACKAGE, WINGS, imported, module_of, read_house

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / PACKAGE).rglob("*.py"))
HEAVY = {"torch", "pandas", "numpy", "safetensors", "sklearn", "vantage6", "opacus", "monai"}
MODULES = {path: module_of(path, ROOT) for path in FILES}
HOUSE = read_house(ROOT)


def name(path: Path) -> str:
    return str(path.relative_to(ROOT / PACKAGE))


def files_of(*rooms: str) -> list[Path]:
    """Return the files below ``v6_algorithm.room``, for dotted names of rooms."""
    below = tuple(f"{PACKAGE}.{room}." for room in rooms)
    found = [path for path, module in MODULES.items() if f"{module}.".startswith(below)]
    assert len(found) >= len(rooms), "a room is gone: change this test with CONTRIBUTING"
    return found


@cache
def imports(path: Path, *, at_start_only: bool = False) -> frozenset[str]:
    return frozenset(imported(path, ROOT, at_start_only=at_start_only))


def test_the_package_has_the_eight_wings_and_no_other_room():
    rooms = {path.name for path in (ROOT / PACKAGE).iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert rooms == {*WINGS, "problems"}
    assert [name(path) for path in files_of("problems")] == ["problems/__init__.py", "problems/base.py"]


def test_imports_go_down_the_list_of_wings_only():
    assert HOUSE.upward() == []


def test_only_engines_and_researcher_know_that_vantage6_exists():
    assert HOUSE.strangers() == []


def test_no_files_import_each_other_in_a_circle():
    assert HOUSE.circles() == []


@pytest.mark.slow
def test_every_file_of_the_data_can_be_imported_first():
    """A package that is imported half-way through its own import: `init` once ended so, in a fresh process only."""
    modules = [module_of(path, ROOT) for path in files_of("data")] + ["v6_algorithm.researcher.drafting"]
    code = f"""
import importlib, sys
for module in {modules}:
    for name in [name for name in sys.modules if name.startswith("{PACKAGE}")]:
        del sys.modules[name]
    importlib.import_module(module)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert done.returncode == 0, done.stderr[-500:]


def test_the_reader_of_a_house_sees_every_fault(tmp_path):
    """An arrow that runs up, coordinator and site meeting, vantage6 where it is not known, and a circle."""
    files = {
        "__init__": "",
        "data/__init__": "",
        "data/a": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from v6_algorithm.data import b",
        "data/b": "def f():\n    import v6_algorithm.data.a\n    import vantage6.algorithm.tools",
        "site/__init__": "from ..coordinator import loop",
        "coordinator/loop": "",
        "exchange/wire": "from v6_algorithm.data.a import x",
    }
    for module, text in files.items():
        path = tmp_path / PACKAGE / f"{module}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    house = read_house(tmp_path)
    assert house.upward() == [
        "v6_algorithm.exchange.wire -> v6_algorithm.data.a",
        "v6_algorithm.site -> v6_algorithm.coordinator.loop",
    ]
    assert house.strangers() == ["v6_algorithm.data.b"]
    assert house.circles() == [["v6_algorithm.data.a", "v6_algorithm.data.b"]]


def test_the_reader_of_imports_reads_them_all():
    sample = ROOT / PACKAGE / "exchange" / "wire" / "packed.py"
    assert {"json", "pybase64", "torch", "v6_algorithm.errors.WireError"} <= imports(sample)
    assert "torch" not in imports(sample, at_start_only=True)


def test_the_coordinator_knows_only_the_protocol_of_a_federation():
    assert not [path for path in files_of("coordinator") if any(".engines" in found for found in imports(path))]


@pytest.mark.parametrize("path", files_of("researcher.report"), ids=name)
def test_a_report_is_made_from_the_result_alone(path):
    allowed = (
        "v6_algorithm.researcher.report",
        "v6_algorithm.learning.metrics",
        "v6_algorithm.errors",
        "v6_algorithm.experiment.metric_names",
        "v6_algorithm.experiment.reading.to_yaml",
        "v6_algorithm.exchange.text",
    )
    assert not [found for found in imports(path) if found.startswith(PACKAGE) and not found.startswith(allowed)]


@pytest.mark.parametrize("path", files_of("researcher"), ids=name)
def test_only_the_command_line_and_the_python_api_report(path):
    if path not in REPORTING:
        calls = ("v6_algorithm.researcher.cli", "v6_algorithm.researcher.report")
        assert not [found for found in imports(path) if found.startswith(calls)]


REPORTING = frozenset(files_of("researcher.cli", "researcher.python", "researcher.report"))
TRACKING = frozenset(files_of("researcher.tracking", "researcher.cli"))
EARLY = [
    ROOT / PACKAGE / "__init__.py",
    *files_of("researcher.cli", "engines.entry", "experiment", "exchange.wire"),
]


@pytest.mark.parametrize("path", EARLY, ids=name)
def test_what_starts_first_imports_no_heavy_library_at_its_start(path):
    assert not {found.split(".")[0] for found in imports(path, at_start_only=True)} & HEAVY


@pytest.mark.slow
@pytest.mark.parametrize(
    "module", ["", ".researcher.cli", ".engines.entry", ".experiment", ".exchange.wire", ".researcher.report"]
)
def test_importing_what_starts_first_loads_neither_torch_nor_pandas(module):
    code = f"import sys, v6_algorithm{module}; print([n for n in ('torch', 'pandas', 'vantage6') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("path", [path for path in FILES if path not in TRACKING], ids=name)
def test_only_the_researchers_side_tracks_and_profiles(path):
    found = set(imports(path))
    assert not [name for name in found if name.startswith("v6_algorithm.researcher.tracking")]
    assert not {name.split(".")[0] for name in found} & {"tensorboard", "wandb", "pyinstrument"}
    assert not {name for name in found if name.startswith("torch.utils.tensorboard")}


@pytest.mark.parametrize("path", FILES, ids=name)
def test_nothing_is_unpickled(path):
    """DESIGN rule 2: weights travel as safetensors; a pickle from the network is code from the network."""
    forbidden = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
    assert not {found.split(".")[0] for found in imports(path)} & forbidden
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    names = {id(call): _dotted(call.func) for call in calls}
    assert not {"torch.load", "torch.save", "eval", "exec"} & set(names.values())
    loads = [ast.unparse(call) for call in calls if names[id(call)] in ("np.load", "numpy.load")]
    assert all("allow_pickle=False" in load for load in loads)


def _dotted(node: ast.expr) -> str:
    """Return `a.b` of a name or an attribute of one, empty for other expressions."""
    if isinstance(node, ast.Name):
        return node.id
    return (
        f"{node.value.id}.{node.attr}" if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) else ""
    )
