"""Writes the plug-in package of an own network or problem, and the Dockerfile of its image: `v6_algorithm.api.package`.

Hospitals run images that they allow, never code from a task. So what a notebook holds becomes a small package, which is
installed in an image made FROM ours and named in the experiment.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

from v6_algorithm.errors import ExperimentError
from v6_algorithm.experiment import plugins
from v6_algorithm.experiment.problems import PROBLEMS
from v6_algorithm.researcher.python.own import directions_of
from v6_algorithm.researcher.python.source_text import SourceText, distributions_by_top

_MARK = "# Written by v6_algorithm; written anew, it loses what was changed by hand."
# Of the extras that our image has.
_IN_IMAGE = ("vantage6", "files", "imaging")


@dataclass(frozen=True)
class Packaged:
    """What was written.

    Attributes
    ----------
    path
        The package's folder.
    name
        What experiments call it.
    keys
        The experiment's keys that name it, as YAML.
    requirements
        What it needs beside our image, as pip wants it.
    """

    path: Path
    name: str
    keys: str
    requirements: list[str]


def write_package(
    what: Any,
    path: str | Path,
    *,
    name: str | None = None,
    problem: str = "classification",
    loss: Any = None,
    metrics: Mapping[str, Any] | None = None,
) -> Packaged:
    """Write the package; see `v6_algorithm.api.package`."""
    group = _group_of(what)
    directions = directions_of(metrics)
    functions = [*([loss] if loss is not None else []), *(function for function, _ in (directions or {}).values())]
    for function in functions:
        if not inspect.isfunction(function):
            raise ExperimentError(f"package: loss and metrics must be functions, not a {type(function).__name__}")
    if functions and group == plugins.GROUP:
        raise ExperimentError("package: a problem brings its own loss and metrics; leave loss and metrics out")
    source = SourceText(what, *functions)
    name = _checked_name(name or _snake(what.__name__), group, functions)
    objects = {group: what.__name__}
    text = str(source)
    if functions:
        objects[plugins.GROUP] = "Problem_"
        text = _with_problem(text, problem, loss, directions)
    requirements = _requirements(source.imported)
    keys = _keys(name, objects)
    files = {
        f"v6_{name}.py": f'"""{name}: what it is, and for whom, is yours to say here."""\n\n{text}',
        "pyproject.toml": _pyproject(name, objects, requirements),
        "Dockerfile": _dockerfile(name, requirements),
        "README.md": _readme(name, keys),
        # What `pip install` leaves here would go into the image, perhaps with modules of an earlier name.
        ".dockerignore": "build\n*.egg-info\n__pycache__\n",
    }
    _try(files[f"v6_{name}.py"], objects)
    folder = Path(path)
    _write(folder, files)
    return Packaged(folder, name, keys, requirements)


def _group_of(what: Any) -> str:
    from torch import nn

    from v6_algorithm.learning.problems.base import Problem

    if isinstance(what, type) and issubclass(what, Problem):
        return plugins.GROUP
    if isinstance(what, nn.Module):
        raise ExperimentError(
            "package: a network that is made already has no source to write; give its class, or a function that makes "
            "it"
        )
    if inspect.isfunction(what) or (isinstance(what, type) and issubclass(what, nn.Module)):
        return plugins.MODELS
    raise ExperimentError(
        f"package: a {what.__name__ if isinstance(what, type) else type(what).__name__} is not taken; allowed: a "
        "torch.nn.Module's class, a function that makes one, a Problem's class"
    )


def _checked_name(name: str, group: str, functions: list[Any]) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,49}", name):
        raise ExperimentError(f"package: name '{name}' must be of a-z, 0-9 and _, and begin with a letter")
    if (group == plugins.GROUP or functions) and name in PROBLEMS:
        raise ExperimentError(f"package: '{name}' is a problem of ours; give another name")
    return name


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def _with_problem(text: str, kind: str, loss: Any, metrics: Mapping[str, tuple[Any, bool]] | None) -> str:
    """Add the problem that has these functions, which the image makes as the notebook did."""
    if kind not in PROBLEMS:
        raise ExperimentError(f"package: problem '{kind}' is not ours; allowed: {', '.join(PROBLEMS)}")
    listed = ", ".join(
        f"{name!r}: ({function.__name__}, {higher})" for name, (function, higher) in (metrics or {}).items()
    )
    arguments = [repr(kind)]
    arguments += [f"loss={loss.__name__}"] if loss is not None else []
    arguments += [f"metrics={{{listed}}}"] if metrics else []
    line = "from v6_algorithm.learning.problems.derived import derived_problem"
    head, mark, rest = text.partition("\n\n\n")
    return f"{head}\n{line}{mark}{rest}\n\nProblem_ = derived_problem({', '.join(arguments)})\n"


def _requirements(imported: set[str]) -> list[str]:
    """Return what is imported and not in our image, at the version that is installed here."""
    try:
        lines = requires("v6-algorithm") or []
    except PackageNotFoundError:
        lines = ["torch", "numpy", "pandas", "pydantic"]
    kept = [line for line in lines if "extra ==" not in line or any(f'"{extra}"' in line for extra in _IN_IMAGE)]
    there = {re.split(r"[^\w.-]", line, maxsplit=1)[0].lower() for line in kept} | {"v6-algorithm"}
    distributions = distributions_by_top()
    needed = {distributions[top][0] for top in imported if top in distributions}
    return sorted(f"{package}=={version(package)}" for package in needed if package.lower() not in there)


def _keys(name: str, objects: Mapping[str, str]) -> str:
    lines = [f"model: {{kind: module, name: {name}}}"] if plugins.MODELS in objects else []
    lines += [f"problem: {{kind: {name}}}"] if plugins.GROUP in objects else []
    return "\n".join(lines)


def _pyproject(name: str, objects: Mapping[str, str], requirements: list[str]) -> str:
    points = "".join(
        f'\n[project.entry-points."{group}"]\n{name} = "v6_{name}:{thing}"\n' for group, thing in objects.items()
    )
    listed = ", ".join(f'"{requirement}"' for requirement in requirements)
    return f"""{_MARK}
[build-system]
requires = ["setuptools>=68"]
build-backend = "setuptools.build_meta"

[project]
name = "v6-{name.replace("_", "-")}"
version = "0.1.0"
description = "{name}, for v6_algorithm"
requires-python = ">=3.11"
dependencies = [{listed}]

# The name that experiments use, and what it stands for.{points}
[tool.setuptools]
py-modules = ["v6_{name}"]
"""


def _dockerfile(name: str, requirements: list[str]) -> str:
    ours = version("v6-algorithm")
    image = f"v6-{name.replace('_', '-')}:0.1.0"
    plain = "" if requirements else " --no-deps"
    return f"""{_MARK}
# `master` and the RPC_ functions stay those of v6_algorithm; a task names this image, its experiment '{name}'.
#   docker build --build-arg IMAGE=REGISTRY/v6-algorithm:{ours} -t REGISTRY/{image} .
#   docker push REGISTRY/{image}
ARG IMAGE=v6-algorithm:{ours}
FROM ${{IMAGE}}
COPY . /plugin
# With the image's own setuptools, so that a network without further packages is built without any index.
RUN pip install --no-cache-dir --no-build-isolation{plain} --root-user-action=ignore /plugin && rm -rf /plugin \\
    && python -c "import v6_{name}"
"""


def _readme(name: str, keys: str) -> str:
    return f"""# {name}

A plug-in of v6_algorithm. An experiment asks for it by name:

```yaml
{keys}
```

At your desk, so that `v6-algorithm validate`, `run` and `submit` know the name: `pip install .` here. For hospitals:
build the image as the Dockerfile's first lines say, push it, and let each node allow it by its digest.
"""


def load_file(path: Path, name: str) -> ModuleType:
    """Run a Python file of the researcher's, at the researcher's desk, as a module of this name.

    Raises
    ------
    ExperimentError
        When it does not run.
    """
    spec = spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ExperimentError(f"package: {path} is no Python file")
    module = sys.modules[name] = module_from_spec(spec)
    sys.path.insert(0, str(path.parent.resolve()))
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ExperimentError(f"package: {path.name} does not run by itself: {error}") from error
    finally:
        sys.path.pop(0)
    return module


def _try(text: str, objects: Mapping[str, str]) -> None:
    """See that the module can be run by itself, as the image will."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "written.py"
        file.write_text(text, encoding="utf-8")
        try:
            module = load_file(file, "_v6_written")
        finally:
            sys.modules.pop("_v6_written", None)
    missing = [thing for thing in objects.values() if not hasattr(module, thing)]
    if missing:
        raise ExperimentError(f"package: what was written does not define {missing[0]}")


def _write(folder: Path, files: Mapping[str, str]) -> None:
    ours = folder / "pyproject.toml"
    try:
        if folder.exists() and not folder.is_dir():
            raise ExperimentError(f"package: {folder} is a file; give a folder")
        written = ours.exists() and ours.read_text(encoding="utf-8").startswith(_MARK)
        if folder.exists() and any(folder.iterdir()) and not written:
            raise ExperimentError(
                f"package: {folder} holds other files; give a new folder, or one of an earlier package"
            )
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (folder / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise ExperimentError(f"package: {folder} cannot be written: {error.strerror}") from None
