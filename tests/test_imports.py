"""Who imports whom: DESIGN's two columns that never meet, and what may cost time or need vantage6 to import."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "v6_algorithm"
FILES = sorted(ROOT.rglob("*.py"))
SITE_SIDE = ["site", "data", "problems", "models", "training", "privacy"]
MASTER_SIDE = ["master", "running", "strategies", "preparation", "summary"]
FLOOR = ["wire", "png", "metrics", "experiment", "errors", "seeding", "lookup", "plugins", "compression"]
EDGE = ["cli", "generating", "entry", "report", "federation", "doctor", "image", "central"]
HEAVY = {"torch", "pandas", "numpy", "safetensors", "sklearn", "vantage6", "opacus", "monai"}


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path, *, at_start_only: bool = False) -> Iterator[str]:
    """Yield full names of what a file imports, in functions too unless `at_start_only`; but not what is for typing."""
    package = module_of(path).split(".") if path.name == "__init__.py" else module_of(path).split(".")[:-1]
    pending: list[ast.AST] = [ast.parse(path.read_text())]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            source = ".".join(filter(None, [above, node.module or ""]))
            # A name may be a module: `from v6_algorithm import wire`.
            yield from (f"{source}.{alias.name}" for alias in node.names)
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            pending.extend(node.orelse)
        elif not (at_start_only and isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))):
            pending.extend(ast.iter_child_nodes(node))


def room_of(name: str) -> str | None:
    """Return the room of ours that a name is from, such as ``wire`` for ``v6_algorithm.wire.pack``."""
    parts = name.split(".")
    return parts[1] if parts[0] == "v6_algorithm" and len(parts) > 1 else None


def files_of(*rooms: str) -> list[Path]:
    found = [path for path in FILES if room_of(module_of(path)) in rooms]
    assert {room_of(module_of(path)) for path in found} == set(rooms), "a room is gone: change this test with DESIGN"
    return found


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_the_reader_of_imports_reads_them_all():
    sample = ROOT / "wire.py"
    assert {"json", "pybase64", "torch", "v6_algorithm.errors.WireError"} <= set(imports(sample))
    assert "torch" not in set(imports(sample, at_start_only=True))


@pytest.mark.parametrize("path", files_of(*MASTER_SIDE), ids=name)
def test_masters_side_does_not_import_the_sites(path):
    assert not {room_of(found) for found in imports(path)} & {*SITE_SIDE, "cli", "entry", "report", "central"}


@pytest.mark.parametrize("path", files_of(*SITE_SIDE), ids=name)
def test_the_sites_side_does_not_import_masters(path):
    assert not {room_of(found) for found in imports(path)} & {
        "master",
        "strategies",
        "running",
        *EDGE,
    }


@pytest.mark.parametrize("path", files_of(*MASTER_SIDE), ids=name)
def test_masters_side_knows_only_the_protocol_of_a_federation(path):
    of_federation = [found for found in imports(path) if room_of(found) == "federation"]
    assert all(found.startswith("v6_algorithm.federation.protocol.") for found in of_federation)


@pytest.mark.parametrize("path", files_of(*FLOOR), ids=name)
def test_the_floor_imports_nothing_above_it(path):
    assert {room_of(found) for found in imports(path)} <= {*FLOOR, None}


@pytest.mark.parametrize("path", files_of("report"), ids=name)
def test_a_report_is_made_from_the_result_alone(path):
    assert {room_of(found) for found in imports(path)} <= {"report", "metrics", "errors", None}


@pytest.mark.parametrize("path", [path for path in FILES if path not in files_of("cli", "report")], ids=name)
def test_only_the_command_line_reports_and_nobody_calls_it(path):
    assert not {room_of(found) for found in imports(path)} & {"cli", "report"}


@pytest.mark.parametrize(
    "path", [path for path in FILES if path not in files_of("federation", "entry", "cli")], ids=name
)
def test_only_the_edge_knows_that_vantage6_exists(path):
    assert not [found for found in imports(path) if found.split(".")[0] == "vantage6"]


@pytest.mark.parametrize("path", [ROOT / "__init__.py", *files_of("cli", "entry", "experiment", "wire")], ids=name)
def test_what_starts_first_imports_no_heavy_library_at_its_start(path):
    assert not {found.split(".")[0] for found in imports(path, at_start_only=True)} & HEAVY


@pytest.mark.parametrize("module", ["", ".cli", ".entry", ".experiment", ".wire", ".report"])
def test_importing_what_starts_first_loads_neither_torch_nor_pandas(module):
    code = f"import sys, v6_algorithm{module}; print([n for n in ('torch', 'pandas', 'vantage6') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("path", [path for path in FILES if path not in files_of("tracking", "cli")], ids=name)
def test_only_the_researchers_side_tracks_and_profiles(path):
    found = set(imports(path))
    assert not {room_of(name) for name in found} & {"tracking"}
    assert not {name.split(".")[0] for name in found} & {"tensorboard", "wandb", "pyinstrument"}
    assert not {name for name in found if name.startswith("torch.utils.tensorboard")}


@pytest.mark.parametrize("path", FILES, ids=name)
def test_nothing_is_unpickled(path):
    """DESIGN rule 2: weights travel as safetensors; a pickle from the network is code from the network."""
    forbidden = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
    assert not {found.split(".")[0] for found in imports(path)} & forbidden
    calls = [ast.unparse(node.func) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    assert not {"torch.load", "torch.save", "eval", "exec"} & set(calls)
    loads = [ast.unparse(node) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    assert all("allow_pickle=False" in call for call in loads if call.startswith(("np.load(", "numpy.load(")))
