"""Fixtures for the tests against a real vantage6 server and real nodes.

`three_sites` is one network for the whole session, `docker_network` the same with algorithms in containers of the image
built from this checkout; a test that needs other nodes changes them for its time (`Network.changed`). `make_network`
starts one with the sites that a test module wants, where that will not do.
V6_REQUIRE_NETWORK=1, for machines that must be able to run these tests: what is missing fails instead of skipping.
"""

from __future__ import annotations

import os
import random
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from warm_python import WarmPython

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "support"), str(HERE / "hq")]

from docker_cli import BASE_IMAGE, bridge_gateway, docker, image_size  # noqa: E402
from figures import CONTAINERS, ENCRYPTED, PROCESSES, STARTUP, Figures  # noqa: E402
from hq_network import HqNetwork, Scripts, algorithm_python, hq_python  # noqa: E402
from services import Postgres, Registry, run_script  # noqa: E402
from v6config import Site  # noqa: E402
from v6network import IMAGE, PROCESS_IMAGES, SELF_TEST_IMAGE, Network  # noqa: E402

from v6_algorithm.researcher.network.server_python import MissingError, server_python  # noqa: E402

BUILD_TIMEOUT_S = 1500
FIGURES = pytest.StashKey[Figures]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[FIGURES] = Figures()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every test here that needs the server or Docker is marked `network` or `docker`, for `-m` to choose by."""
    for item in items:
        fixtures = getattr(item, "fixturenames", ())
        if {"vantage6_python", "algorithm_python_5", "hq_network"} & set(fixtures):
            item.add_marker(pytest.mark.network)
        if {"algorithm_image", "algorithm_image_5"} & set(fixtures):
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


@pytest.fixture(scope="session")
def algorithm_python_5() -> Iterator[str]:
    """Python 3.11 with torch and vantage6 5's algorithm tools; scripts start warm while it is there."""
    try:
        python = algorithm_python()
    except MissingError as what:
        missing(str(what))
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        warm = WarmPython(Path(folder), python, OMP_NUM_THREADS="1")
        patch.setattr(Scripts, "python", staticmethod(lambda: str(warm.command)))
        yield python
        warm.stop()


@pytest.fixture(scope="module")
def hq_network(
    algorithm_python_5: str, tmp_path_factory: pytest.TempPathFactory, figures: Figures
) -> Iterator[Callable[..., HqNetwork]]:
    """`hq_network({"a": {"databases": {"default": [path, "csv"]}, "environment": {…}}, …})`; ended with the module."""
    started: list[HqNetwork] = []

    def make(sites: dict[str, dict], image: str | None = None) -> HqNetwork:
        try:
            hq_python()
        except MissingError as what:
            missing(str(what))
        start = time.monotonic()
        started.append(HqNetwork(tmp_path_factory.mktemp("hq"), sites, image))
        where = CONTAINERS if image else PROCESSES
        figures.note(f"vantage6 5: {STARTUP}", where, f"{time.monotonic() - start:.0f}")
        return started[-1]

    yield make
    for network in started:
        network.stop()


@pytest.fixture(scope="session")
def figures(request: pytest.FixtureRequest) -> Figures:
    """Where a test puts what it measured."""
    return request.config.stash[FIGURES]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    lines = config.stash[FIGURES].lines()
    if lines:
        terminalreporter.section("what was measured")
        terminalreporter.write_line("\n".join(lines))


@contextmanager
def networks(
    python: str, tmp_path_factory: pytest.TempPathFactory, figures: Figures, request: pytest.FixtureRequest
) -> Iterator[Callable[..., Network]]:
    """Give a function that starts networks; all are ended with the block."""
    started: list[Network] = []

    def make(sites: dict[str, Site], **options) -> Network:
        start = time.monotonic()
        if options.get("images", PROCESS_IMAGES) is not None:
            options.setdefault("interpreter", request.getfixturevalue("warm_python").command)
        network = Network(tmp_path_factory.mktemp("network"), python, sites, **options)
        started.append(network)
        network.start()
        kind = PROCESSES if network.in_processes else ENCRYPTED if network.encrypted else CONTAINERS
        figures.note(STARTUP, kind, f"{time.monotonic() - start:.0f}")
        return network

    try:
        yield make
    finally:
        for network in started:
            network.stop()


@pytest.fixture(scope="module")
def make_network(
    vantage6_python: str, tmp_path_factory: pytest.TempPathFactory, figures: Figures, request: pytest.FixtureRequest
) -> Iterator[Callable[..., Network]]:
    """`make_network({"a": Site(...), …}, encrypted=False)`; ended with the module."""
    with networks(vantage6_python, tmp_path_factory, figures, request) as make:
        yield make


@pytest.fixture(scope="session")
def three_sites(
    vantage6_python: str, tmp_path_factory: pytest.TempPathFactory, figures: Figures, request: pytest.FixtureRequest
) -> Iterator[Network]:
    """A hub and sites a, b, c with 40, 50 and 60 rows of `age`, `dose`, `outcome` in the database `default`."""
    with networks(vantage6_python, tmp_path_factory, figures, request) as make:
        yield make(patients(tmp_path_factory.mktemp("data")))


@pytest.fixture(scope="session")
def algorithm_image(figures: Figures) -> str:
    """The image, built from this checkout; nearly all of it is a layer that Docker keeps."""
    start = time.monotonic()
    try:
        run_script("build_image.sh", IMAGE, timeout_s=BUILD_TIMEOUT_S, PYTHON=sys.executable)
    except MissingError as what:
        missing(str(what))
    size = image_size(IMAGE)
    figures.remarks.append(
        f"image: {size / 1e9:.2f} GB, {(size - image_size(BASE_IMAGE)) / 1e9:.2f} GB of it on top of its base; "
        f"built in {time.monotonic() - start:.0f} s with what Docker had of it"
    )
    return IMAGE


@pytest.fixture(scope="session")
def algorithm_image_5(figures: Figures) -> str:
    """The image for vantage6 5, on the same base, whose Python is older than its tools ask for."""
    image = f"{IMAGE}-vantage6-5"
    try:
        run_script("build_image.sh", image, timeout_s=BUILD_TIMEOUT_S, PYTHON=sys.executable, VANTAGE6="5")
    except MissingError as what:
        missing(str(what))
    figures.remarks.append(f"image for vantage6 5: {image_size(image) / 1e9:.2f} GB")
    return image


@pytest.fixture(scope="session")
def self_test_image(algorithm_image: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The tiny algorithm on top of the image: its Python and its wrapper are what it tests."""
    folder = tmp_path_factory.mktemp("image")
    (folder / "Dockerfile").write_text(
        f"FROM {algorithm_image}\nCOPY count_rows.py /opt/self_test/\n"
        "ENV PKG_NAME=count_rows PYTHONPATH=/opt/self_test\n"
    )
    (folder / "count_rows.py").write_text((HERE / "support" / "count_rows.py").read_text())
    docker("build", "--tag", SELF_TEST_IMAGE, str(folder))
    return SELF_TEST_IMAGE


@pytest.fixture(scope="session")
def docker_network(
    self_test_image: str,
    vantage6_python: str,
    tmp_path_factory: pytest.TempPathFactory,
    figures: Figures,
    request: pytest.FixtureRequest,
) -> Iterator[Network]:
    """As `three_sites`, with algorithms in containers."""
    with networks(vantage6_python, tmp_path_factory, figures, request) as make:
        yield make(patients(tmp_path_factory.mktemp("data")), **in_containers())


def in_containers() -> dict[str, str | None]:
    """Options of a `Network` whose nodes use Docker."""
    return {"images": None, "proxy_host": bridge_gateway()}


@pytest.fixture(scope="module")
def make_postgres() -> Iterator[Callable[..., Postgres]]:
    """`make_postgres("172.17.0.1")`: a PostgreSQL on loopback and these addresses; ended with the module."""
    started: list[Postgres] = []

    def make(*addresses: str) -> Postgres:
        try:
            started.append(Postgres(addresses))
        except MissingError as what:
            missing(str(what))
        return started[-1]

    yield make
    for postgres in started:
        postgres.stop()


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a container registry, empty at first."""
    try:
        started = Registry(tmp_path_factory.mktemp("registry"))
    except MissingError as what:
        missing(str(what))
    yield started.address
    started.stop()


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
