"""Fixtures for the tests against a real vantage6 server and real nodes.

`make_network` starts one with the sites that a test module wants; `three_sites` is one for those that want nothing
special. `docker_network` is the same with algorithms in containers of the image built from this checkout.
V6_REQUIRE_NETWORK=1, for machines that must be able to run these tests: what is missing fails instead of skipping.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "support"))

from docker_cli import bridge_gateway, docker  # noqa: E402
from server_python import MissingError, server_python  # noqa: E402
from v6network import IMAGE, SELF_TEST_IMAGE, Network, Site  # noqa: E402

IMPOSSIBLE = 3  # exit code of the scripts for "not on this machine"
BUILD_TIMEOUT_S = 1500


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every test here that needs the server or Docker is marked `network` or `docker`, for `-m` to choose by."""
    for item in items:
        fixtures = getattr(item, "fixturenames", ())
        if "vantage6_python" in fixtures:
            item.add_marker(pytest.mark.network)
        if "algorithm_image" in fixtures:
            item.add_marker(pytest.mark.docker)


def missing(what: str) -> None:
    """End the test because this machine lacks something."""
    if os.environ.get("V6_REQUIRE_NETWORK"):
        pytest.fail(what, pytrace=False)
    pytest.skip(what)


@pytest.fixture(scope="session")
def vantage6_python() -> str:
    """Python 3.10 with vantage6's server and node."""
    try:
        return server_python()
    except MissingError as what:
        missing(str(what))


@pytest.fixture(scope="module")
def make_network(vantage6_python: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Network]]:
    """`make_network({"a": Site(...), …}, encrypted=False)`; ended with the module."""
    started: list[Network] = []

    def make(sites: dict[str, Site], **options) -> Network:
        network = Network(tmp_path_factory.mktemp("network"), vantage6_python, sites, **options)
        started.append(network)
        return network.start()

    yield make
    for network in started:
        network.stop()


@pytest.fixture(scope="module")
def three_sites(make_network: Callable[..., Network], tmp_path_factory: pytest.TempPathFactory) -> Network:
    """A hub and sites a, b, c with 40, 50 and 60 rows of `age`, `dose`, `outcome` in the database `default`."""
    return make_network(patients(tmp_path_factory.mktemp("data")))


@pytest.fixture(scope="session")
def algorithm_image() -> str:
    """The image, built from this checkout; nearly all of it is a layer that Docker keeps."""
    built = subprocess.run(
        [HERE / "build_image.sh", IMAGE],
        capture_output=True,
        text=True,
        timeout=BUILD_TIMEOUT_S,
        env={**os.environ, "PYTHON": sys.executable},
    )
    if built.returncode == IMPOSSIBLE:
        missing(built.stderr.strip().splitlines()[-1])
    if built.returncode:
        pytest.fail(f"{HERE.name}/build_image.sh failed\n{built.stdout[-3000:]}\n{built.stderr[-3000:]}", pytrace=False)
    return IMAGE


@pytest.fixture(scope="module")
def docker_network(
    algorithm_image: str, make_network: Callable[..., Network], tmp_path_factory: pytest.TempPathFactory
) -> Network:
    """As `three_sites`, with algorithms in containers."""
    folder = tmp_path_factory.mktemp("docker")
    (folder / "Dockerfile").write_text(
        f"FROM {algorithm_image}\nCOPY count_rows.py /opt/self_test/\n"
        "ENV PKG_NAME=count_rows PYTHONPATH=/opt/self_test\n"
    )
    (folder / "count_rows.py").write_text((HERE / "support" / "count_rows.py").read_text())
    docker("build", "--tag", SELF_TEST_IMAGE, str(folder))
    return make_network(patients(folder), images=None, proxy_host=bridge_gateway())


def patients(folder: Path) -> dict[str, Site]:
    """Sites a, b, c with 40, 50 and 60 patients in the database `default`."""
    sizes = {"a": 40, "b": 50, "c": 60}
    return {
        name: Site({"default": write_patients(folder / f"{name}.csv", rows, seed=rows)}) for name, rows in sizes.items()
    }


def write_patients(path: Path, rows: int, seed: int) -> Path:
    """A CSV file of made-up patients whose outcome depends on age and dose."""
    generator = random.Random(seed)
    lines = ["age,dose,outcome"]
    for _ in range(rows):
        age, dose = generator.gauss(60, 12), generator.uniform(0, 10)
        lines.append(f"{age:.1f},{dose:.2f},{int(generator.gauss(age / 12 - dose, 1) > 0)}")
    path.write_text("\n".join(lines) + "\n")
    return path
