"""Docker's command line for the tests."""

from __future__ import annotations

import ipaddress
import json
import os
import subprocess

BASE_IMAGE = os.environ.get("V6_BASE_IMAGE", "v6-python-base:bookworm")  # as in the scripts


def docker(*arguments: str) -> str:
    """Run Docker's client and return what it printed; the classic builder, since Debian's Docker has no other."""
    environment = {**os.environ, "DOCKER_BUILDKIT": "0"}
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, env=environment)
    if done.returncode:
        raise RuntimeError(f"docker {' '.join(arguments)}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout.strip()


def bridge_gateway() -> str:
    """This machine's address for containers; Docker leaves it out of the default bridge where nobody configured it."""
    (pool, *_) = json.loads(docker("network", "inspect", "bridge"))[0]["IPAM"]["Config"]
    return pool.get("Gateway") or str(next(ipaddress.ip_network(pool["Subnet"]).hosts()))


def image_size(name: str) -> int:
    """Bytes, as `docker images` shows them."""
    return json.loads(docker("image", "inspect", name))[0]["Size"]


def remove_all_named(name: str) -> None:
    """Remove the containers, networks and volumes with this in their name, which vantage6's node leaves behind."""
    for kind, listing, removal in (
        ("container", ["ls", "--all"], ["rm", "--force"]),
        ("network", ["ls"], ["rm"]),
        ("volume", ["ls"], ["rm"]),
    ):
        found = docker(kind, *listing, "--quiet", "--filter", f"name={name}").split()
        if found:
            docker(kind, *removal, *found)
