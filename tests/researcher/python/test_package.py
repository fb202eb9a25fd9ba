"""A network of a notebook or file becomes a plug-in package: what is copied and refused, and that it runs installed."""

from __future__ import annotations

import linecache
import subprocess
import sys

import numpy as np
import pytest
import torch
from hospitals import command, make_table

import v6_algorithm.api as v6
from v6_algorithm.errors import ExperimentError
from v6_algorithm.experiment import plugins
from v6_algorithm.researcher.python.package import _with_problem

CELLS = [
    "import torch\nfrom torch import nn\nfrom torch.nn import functional as F\nimport numpy as np\n",
    "WIDTHS = [4, 3]\nx = np.ones(3)\n",
    "def hidden(inputs):\n    '''Layers.'''\n    return nn.Sequential(nn.Linear(inputs, WIDTHS[0]), nn.Tanh())\n",
    "class MyNet(nn.Module):\n    def __init__(self, inputs, outputs):\n        super().__init__()\n"
    "        self.body = hidden(inputs)\n        self.last = nn.Linear(WIDTHS[0], outputs)\n\n"
    "    def forward(self, x):\n        return self.last(F.relu(self.body(x)))\n",
    "def brier(output, target):\n    return (torch.sigmoid(output[:, 0]) - target) ** 2\n",
    "def hit(prediction, target):\n    return prediction.argmax(axis=1) == target\n",
]
SETTINGS = {"rounds": 2, "batch_size": 8, "seed": 3}


@pytest.fixture
def notebook(monkeypatch):
    """Run cells as a notebook does: all in `__main__`, each with its source in linecache."""
    module = type(sys)("__main__")
    monkeypatch.setitem(sys.modules, "__main__", module)

    def run(*cells: str):
        for number, cell in enumerate(cells):
            name = f"<cell {number} {hash(cell)}>"
            linecache.cache[name] = (len(cell), None, cell.splitlines(keepends=True), name)
            exec(compile(cell, name, "exec", dont_inherit=True), module.__dict__)  # noqa: S102
        return module

    return run


def test_the_package_holds_what_the_network_uses_and_nothing_else(notebook, tmp_path):
    cells = notebook(*CELLS)
    folder = v6.package(cells.MyNet, tmp_path / "plug-in")
    text = (folder / "v6_my_net.py").read_text()
    for line in ("from torch import nn", "import torch.nn.functional as F", "WIDTHS = [4, 3]", "def hidden(inputs):"):
        assert line in text
    assert "numpy" not in text
    assert "brier" not in text
    assert 'my_net = "v6_my_net:MyNet"' in (folder / "pyproject.toml").read_text()
    assert "dependencies = []" in (folder / "pyproject.toml").read_text()
    space: dict = {"__name__": "again"}
    exec(text, space)  # noqa: S102
    torch.manual_seed(0)
    before = cells.MyNet(3, 1)
    torch.manual_seed(0)
    after = space["MyNet"](3, 1)
    rows = torch.randn(5, 3)
    assert torch.equal(before(rows), after(rows))


def test_a_package_is_written_again_over_itself_and_over_nothing_else(notebook, tmp_path):
    cells = notebook(*CELLS)
    v6.package(cells.MyNet, tmp_path / "plug-in")
    v6.package(cells.MyNet, tmp_path / "plug-in", name="other")
    assert (tmp_path / "plug-in" / "v6_other.py").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(ExperimentError, match="holds other files"):
        v6.package(cells.MyNet, tmp_path / "mine")


USES_ARRAY = "def made(inputs, outputs):\n    return nn.Sequential(nn.Linear(inputs, len(x)), nn.Linear(3, outputs))\n"
USES_NOTHING = "def made(inputs, outputs):\n    return nn.Sequential(nn.Linear(inputs, missing))\n"


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (USES_ARRAY, "'made' uses 'x', a ndarray of this session"),
        (USES_NOTHING, "'made' uses 'missing', which is not defined"),
        ("made = lambda inputs, outputs: nn.Linear(inputs, outputs)\n", "a lambda has no name"),
        ("made = nn.Linear(3, 1)\n", "a network that is made already has no source"),
        ("made = 3\n", "a int is not taken; allowed: a torch.nn.Module's class"),
        (
            "def outer():\n    def made(inputs, outputs):\n        return nn.Linear(inputs, outputs)\n    return made\n"
            "made = outer()\n",
            "defined inside another function",
        ),
    ],
)
def test_what_cannot_be_written_is_refused_by_name(notebook, tmp_path, cell, message):
    cells = notebook(*CELLS, cell)
    with pytest.raises(ExperimentError, match=message):
        v6.package(cells.made, tmp_path / "plug-in")
    assert not (tmp_path / "plug-in").exists()


def test_a_name_that_is_a_problem_of_ours_is_refused(notebook, tmp_path):
    cells = notebook(*CELLS)
    with pytest.raises(ExperimentError, match="'survival' is a problem of ours"):
        v6.package(cells.MyNet, tmp_path / "plug-in", name="survival", loss=cells.brier)


def test_the_command_packages_what_a_file_defines(tmp_path):
    (tmp_path / "networks.py").write_text("\n\n".join([*CELLS[:4], "assert MyNet(2, 1)"]))
    result = command("package", f"{tmp_path / 'networks.py'}:MyNet", tmp_path / "plug-in", "--name", "mine")
    assert result.exit_code == 0, result.output
    assert "model: {kind: module, name: mine}" in result.output
    assert (tmp_path / "plug-in" / "Dockerfile").read_text().count("v6_mine") == 1
    wrong = command("package", f"{tmp_path / 'networks.py'}:Missing", tmp_path / "other")
    assert wrong.exit_code == 2
    assert "defines no 'Missing'" in wrong.output


@pytest.mark.slow
def test_the_wheel_of_a_packaged_network_gives_the_notebooks_numbers_on_the_mock_client(
    notebook, tmp_path, monkeypatch
):
    """With loss and metric of its own; built, installed into a folder, and named by an experiment."""
    pytest.importorskip("vantage6.algorithm.tools")
    cells = notebook(*CELLS)
    frames = {"a": make_table(60, 1), "b": make_table(40, 2)}
    parts = {"loss": cells.brier, "metrics": {"hit": cells.hit}}
    there = v6.run(v6.Experiment(target="y", **SETTINGS), frames, model=cells.MyNet, **parts)
    folder = v6.package(cells.MyNet, tmp_path / "plug-in", **parts)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = [*pip, "wheel", "--no-deps", "--no-index", "--no-build-isolation", "-w", str(tmp_path / "wheels")]
    subprocess.run([*build, str(folder)], check=True, timeout=120, capture_output=True)
    (wheel,) = (tmp_path / "wheels").glob("*.whl")
    install = [*pip, "install", "--no-deps", "--no-index", "--target", str(tmp_path / "site"), str(wheel)]
    subprocess.run(install, check=True, timeout=120, capture_output=True)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    plugins._load.cache_clear()
    try:
        keys = {"problem": {"kind": "my_net"}, "model": {"kind": "module", "name": "my_net"}}
        experiment = v6.Experiment(data={"target": "y"}, stopping={"monitor": "loss"}, seed=3, rounds=2,
                                   training={"batch_size": 8}, **keys)  # fmt: skip
        installed = v6.run(experiment, frames, engine="mock")
    finally:
        plugins._load.cache_clear()
    assert installed.content["metrics"]["test"]["pooled"].keys() == {"n", "loss", "hit"}
    for part in ("validation", "test"):
        for name, value in there.content["metrics"][part]["pooled"].items():
            assert np.isclose(installed.content["metrics"][part]["pooled"][name], value, atol=1e-6), (part, name)


def test_functions_of_a_notebook_go_with_problems_that_are_ours():
    with pytest.raises(ExperimentError, match="package: problem 'survivel' is not ours; allowed: "):
        _with_problem("", "survivel", None, None)
    assert "'classification'" in _with_problem("", "classification", None, {"f2": (np.mean, True)})
