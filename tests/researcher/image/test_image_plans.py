"""What a build is given: names, the Dockerfile's arguments, and what the checkout says about itself."""

from __future__ import annotations

import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from v6_algorithm.errors import ExperimentError
from v6_algorithm.researcher.image import build
from v6_algorithm.researcher.image.build import plan
from v6_algorithm.researcher.image.names import default_tag, name_at, own_version, split_tag

ROOT = Path(__file__).parents[3]


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    command = ["git", "-C", str(folder), *who, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def checkout(tmp_path):
    """The files that make a checkout, in no git repository."""
    folder = tmp_path / "checkout"
    (folder / "v6_algorithm").mkdir(parents=True)
    for name in build._NEEDED:
        (folder / name).write_bytes((ROOT / name).read_bytes())
    return folder


# -- arguments -----------------------------------------------------------------------------------------------------


def test_every_argument_is_one_that_the_dockerfile_knows():
    declared = set(re.findall(r"^ARG (\w+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE))
    given = plan(base_image="base:1", torch_index="https://example.org/torch").arguments
    assert given.keys() <= declared
    assert declared - given.keys() == {"PIP_CERT", "PIP_IGNORE_REQUIRES_PYTHON", "PKG_NAME"}


def test_options_become_arguments_and_what_is_not_given_stays_the_dockerfiles():
    given = plan(variant="cuda", base_image="python:3.12-slim", torch_index="https://example.org/cu126")
    assert {name: given.arguments[name] for name in ("VARIANT", "BASE_IMAGE", "TORCH_INDEX")} == {
        "VARIANT": "cuda",
        "BASE_IMAGE": "python:3.12-slim",
        "TORCH_INDEX": "https://example.org/cu126",
    }
    assert not plan().arguments.keys() & {"BASE_IMAGE", "TORCH_INDEX"}
    assert plan().arguments["VARIANT"] == "cpu"
    assert (given.base, plan().base) == ("python:3.12-slim", "python:3.11-slim-bookworm")


def test_an_image_for_vantage6_5_has_its_tools_and_the_python_that_they_want(monkeypatch):
    given = plan(vantage6=5)
    assert (given.arguments["VANTAGE6"], given.arguments["VANTAGE6_VERSION"][:2]) == ("5", "5.")
    assert given.base == given.arguments["BASE_IMAGE"] == "python:3.13-slim-bookworm"
    assert given.tag == f"v6-algorithm:{own_version()}-vantage6-5"
    assert plan().arguments["VANTAGE6"] == "4"
    monkeypatch.setenv("PIP_IGNORE_REQUIRES_PYTHON", "1")
    assert plan(vantage6=5, base_image="base:1").arguments["PIP_IGNORE_REQUIRES_PYTHON"] == "1"
    with pytest.raises(ExperimentError, match="--vantage6 6: is not known; allowed: 4, 5"):
        plan(vantage6=6)


def test_versions_are_the_checkouts_not_the_running_packages(checkout):
    (checkout / "v6_algorithm" / "VERSION").write_text("9.8.7\n")
    pins = (checkout / "constraints.txt").read_text()
    pins = re.sub(r"vantage6-algorithm-tools==\S+", "vantage6-algorithm-tools==4.99.0", pins)
    (checkout / "constraints.txt").write_text(pins)
    made = plan(checkout)
    assert made.tag == "v6-algorithm:9.8.7"
    assert (made.arguments["VERSION"], made.arguments["VANTAGE6_VERSION"]) == ("9.8.7", "4.99.0")


def test_the_date_is_in_utc():
    created = datetime.strptime(plan().arguments["CREATED"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    assert abs((datetime.now(UTC) - created).total_seconds()) < 3600


@pytest.mark.parametrize(
    ("index", "host_network"),
    [
        (None, False),
        ("https://download.pytorch.org/whl/cpu", False),
        ("http://127.0.0.1:38417/", True),
        ("http://localhost:1/simple", True),
        ("http://[::1]:1/", True),
    ],
)
def test_an_index_on_loopback_is_reached_through_this_machines_network(index, host_network):
    assert plan(torch_index=index).host_network is host_network


@pytest.mark.parametrize("index", ["cu126", "/opt/wheels", "ftp://example.org"])
def test_an_index_that_is_no_address_is_refused(index):
    with pytest.raises(ExperimentError, match=f"--torch-index {index}: must be"):
        plan(torch_index=index)


def test_an_index_with_a_password_is_refused_for_the_images_history_would_keep_it():
    with pytest.raises(ExperimentError, match="takes no user or password") as refused:
        plan(torch_index="https://me:SECRET@example.org/torch")
    assert "SECRET" not in str(refused.value)


# -- where the source is from --------------------------------------------------------------------------------------


def test_without_git_revision_and_source_are_empty(checkout, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(checkout.parent))
    assert {plan(checkout).arguments[name] for name in ("REVISION", "SOURCE")} == {""}
    monkeypatch.setenv("PATH", "")
    assert {plan(checkout).arguments[name] for name in ("REVISION", "SOURCE")} == {""}


def test_the_revision_says_when_files_differ_from_it(checkout):
    git(checkout, "init", "--quiet")
    git(checkout, "add", ".")
    git(checkout, "commit", "--quiet", "--message", "first")
    commit = git(checkout, "rev-parse", "HEAD")
    assert plan(checkout).arguments["REVISION"] == commit
    (checkout / "setup.py").write_text("changed")
    assert plan(checkout).arguments["REVISION"] == f"{commit}-dirty"


@pytest.mark.parametrize(
    ("remote", "source"),
    [
        ("https://example.org/group/v6.git", "https://example.org/group/v6"),
        ("https://me:SECRET@example.org:8443/group/v6", "https://example.org:8443/group/v6"),
        ("https://SECRET@example.org/group/v6.git", "https://example.org/group/v6"),
        ("git@example.org:group/v6.git", "https://example.org/group/v6"),
        ("ssh://git@example.org:22/group/v6.git", "https://example.org/group/v6"),
        ("/home/someone/v6", ""),
        ("../v6.git", ""),
    ],
)
def test_the_source_is_an_address_for_people_and_holds_no_password(checkout, remote, source):
    git(checkout, "init", "--quiet")
    git(checkout, "remote", "add", "origin", remote)
    assert plan(checkout).arguments["SOURCE"] == source


# -- the checkout --------------------------------------------------------------------------------------------------


def test_an_installed_package_says_that_it_needs_a_checkout(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "__file__", str(tmp_path / "site-packages" / "v6_algorithm" / "image" / "build.py"))
    with pytest.raises(ExperimentError, match=r"not a checkout.*--source DIR"):
        plan()


def test_a_source_that_is_none_says_what_it_lacks(checkout):
    (checkout / "Dockerfile").unlink()
    with pytest.raises(ExperimentError, match=r"is not a checkout of v6_algorithm: it has no Dockerfile$"):
        plan(checkout)


# -- names ---------------------------------------------------------------------------------------------------------


def test_the_two_tags_of_a_version():
    assert [default_tag("0.1.0", variant) for variant in ("cpu", "cuda")] == [
        "v6-algorithm:0.1.0",
        "v6-algorithm:0.1.0-cuda",
    ]
    assert plan(variant="cuda").tag == f"v6-algorithm:{own_version()}-cuda"


def test_another_variant_is_refused():
    with pytest.raises(ExperimentError, match="--variant rocm: is not known; allowed: cpu, cuda"):
        plan(variant="rocm")


@pytest.mark.parametrize(
    ("image", "parts"),
    [
        ("v6-algorithm", ("v6-algorithm", "latest")),
        ("v6-algorithm:0.1.0-cuda", ("v6-algorithm", "0.1.0-cuda")),
        ("example.org/group/v6:1", ("example.org/group/v6", "1")),
        ("localhost:5000/v6", ("localhost:5000/v6", "latest")),
        ("a__b.c--d:_x", ("a__b.c--d", "_x")),
    ],
)
def test_a_name_is_split_where_docker_splits_it(image, parts):
    assert split_tag(image) == parts


@pytest.mark.parametrize(
    "image", ["", "Upper", "a b", "v6:", "v6:.x", "v6:é", "-v6", "v6/", "v6@sha256:0", "v6:" + "x" * 129]
)
def test_a_name_that_docker_would_not_take_is_refused_before_it_is_asked(image):
    with pytest.raises(ExperimentError, match="is not an image name"):
        plan(tag=image or " ")


@pytest.mark.parametrize(
    ("registry", "name"),
    [
        ("example.org", "example.org/v6-algorithm"),
        ("127.0.0.1:5000", "127.0.0.1:5000/v6-algorithm"),
        ("ghcr.io/group/", "ghcr.io/group/v6-algorithm"),
    ],
)
def test_a_pushed_image_keeps_its_last_name_and_tag(registry, name):
    assert name_at(registry, "v6-algorithm:0.1.0") == (name, "0.1.0")
    assert name_at(registry, "other.org/group/v6-algorithm:0.1.0") == (name, "0.1.0")


@pytest.mark.parametrize("registry", ["https://example.org", "", "example.org/Group", "a b"])
def test_a_registry_that_is_no_host_is_refused(registry):
    with pytest.raises(ExperimentError, match=r"write it as HOST\[:PORT\]\[/PATH\]"):
        name_at(registry, "v6-algorithm:1")


def test_a_password_in_the_registry_is_refused_and_not_repeated():
    with pytest.raises(ExperimentError, match="docker login") as refused:
        name_at("me:SECRET@example.org", "v6-algorithm:1")
    assert "SECRET" not in str(refused.value)
