"""Images by digest, as config/ allows them: a registry, and a node that runs what it fetches there and no other."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from docker_cli import BASE_IMAGE, docker
from v6config import Site, template
from v6network import Network

# As much of an algorithm as a node needs: it says which image it is. vantage6 encodes the variables of a container.
ALGORITHM = """
import base64, os, pathlib
path = base64.b32decode(os.environ["OUTPUT_FILE"].replace("!", "=")).decode()
pathlib.Path(path).write_text(os.environ["CONTENT"])
"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def digests(algorithm_image, registry, tmp_path_factory) -> Iterator[dict[str, str]]:
    """Two images, one after the other under the same tag: name@digest by what they answer. Neither is left here."""
    folder, name = tmp_path_factory.mktemp("image"), f"{registry}/v6-algorithm"
    (folder / "algorithm.py").write_text(ALGORITHM)
    found = {}
    for content in ("1", "2"):
        (folder / "Dockerfile").write_text(
            f'FROM {BASE_IMAGE}\nCOPY algorithm.py /\nENV CONTENT={content}\nCMD ["python", "/algorithm.py"]\n'
        )
        docker("build", "--tag", f"{name}:0.1.0", str(folder))
        docker("push", f"{name}:0.1.0")
        (found[content],) = docker(
            "inspect", "--format", "{{range .RepoDigests}}{{.}} {{end}}", f"{name}:0.1.0"
        ).split()
        docker("rmi", f"{name}:0.1.0")  # the digest goes with it
    yield found
    # What the node fetched has no tag.
    held = docker("images", "--quiet", "--no-trunc", name).split()
    if held:
        docker("rmi", *held)


@pytest.fixture(scope="module")
def hospital(docker_network, digests) -> Iterator[Network]:
    """Site a allows the first image, by its digest."""
    (form,) = template("node_configuration.yaml")["policies"]["allowed_algorithms"]
    name, _, digest = digests["1"].partition("@")
    allowed = form.replace(form.partition("@")[0], name).replace("sha256:replace", digest)
    policies = {"allowed_algorithms": [allowed], "require_algorithm_pull": True}
    with docker_network.changed({"a": Site(docker_network.sites["a"].databases, policies=policies)}):
        yield docker_network


def run_image(network: Network, image: str) -> tuple[str, object]:
    run = network.wait(network.create("any", at=["a"], image=image), timeout_s=300)["a"]
    return run.status, run.result


def test_the_image_of_that_digest_is_fetched_and_runs(hospital, digests):
    assert run_image(hospital, digests["1"]) == ("completed", 1)


def test_another_digest_is_refused(hospital, digests):
    assert run_image(hospital, digests["2"]) == ("not allowed", None)


def test_a_tag_that_was_moved_to_another_image_is_refused(hospital, digests):
    name = digests["1"].partition("@")[0]
    assert run_image(hospital, f"{name}:0.1.0") == ("not allowed", None)


def test_an_image_of_the_same_name_that_was_never_pushed_is_refused(hospital, digests, registry):
    assert run_image(hospital, f"{registry}/v6-algorithm:local") == ("not allowed", None)


def test_a_node_that_must_pull_runs_no_local_image(docker_network, self_test_image):
    own = docker_network.sites["a"]
    with docker_network.changed({"a": Site(own.databases, policies={"require_algorithm_pull": True})}):
        assert run_image(docker_network, self_test_image) == ("non-existing Docker image", None)
