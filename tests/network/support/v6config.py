"""The files in config/, filled in for the tests: what they say stays, but for what they ask to be replaced.

So the network of the tests runs on what users are given to copy, and a template that no longer works fails here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

CONFIG = Path(__file__).parents[3] / "config"


@dataclass
class Site:
    """One organisation and what its node owner configures.

    Attributes
    ----------
    databases
        Path or address by label: a folder becomes a database of type `folder`, an address `sql`, a file its suffix's.
    guards
        `algorithm_env` of the node; None: the template's.
    policies
        Added to the node's `policies`.
    gpu
        The template's block for a GPU node counts.
    models
        A folder into which algorithms write what stays here of a model.
    online
        False: the node exists on the server, and is not started.
    server_port
        Where its node finds the server; None: at the server's own port.
    """

    databases: Mapping[str, Path | str] = field(default_factory=dict)
    guards: Mapping[str, Any] | None = field(default_factory=dict)
    policies: Mapping[str, Any] = field(default_factory=dict)
    gpu: bool = False
    models: Path | None = None
    online: bool = True
    server_port: int | None = None


def template(name: str, *options: str) -> dict[str, Any]:
    """Read a file of config/; `options` are keys that it has as comments, which are to count.

    Raises
    ------
    ValueError
        When the file has no such comment.
    """
    text = (CONFIG / name).read_text(encoding="utf-8")
    for option in options:
        text, found = re.subn(rf"(?m)^(\s*)# ({re.escape(option)}\b)", r"\1\2", text)
        if found != 1:
            raise ValueError(f"config/{name} has {found} comments that begin with {option}, not one")
    return yaml.safe_load(text)


def server_settings(folder: Path, *, port: int, uri: str, secret: str) -> dict[str, Any]:
    """Settings of a server on loopback that keeps what it writes in `folder`."""
    settings = template("v6server.yaml", "jwt_secret_key")
    settings |= {"ip": "127.0.0.1", "port": port, "uri": uri, "jwt_secret_key": secret}
    settings["directories"] = {"log": str(folder), "data": str(folder)}
    settings["logging"]["level"] = "WARNING"  # a line for every request fills a test's report
    return settings


def entities(
    name: str, *, keys: Mapping[str, str], public_keys: Mapping[str, str], encrypted: bool, user: tuple[str, str]
) -> dict[str, Any]:
    """One collaboration of the organisations with an API key; the first of them is the researcher's."""
    found = template("entities.yaml")
    first, other, *_ = found["organizations"]
    (researcher,) = first["users"]
    researcher |= dict(zip(("username", "password"), user, strict=True))
    found["organizations"] = [
        {**(other if number else first), "name": site, "domain": f"{site}.example.org", "public_key": public_keys[site]}
        for number, site in enumerate(keys)
    ]
    (collaboration,) = found["collaborations"]
    participants = [{"name": site, "api_key": key} for site, key in keys.items()]
    collaboration |= {"name": name, "encrypted": encrypted, "participants": participants}
    return found


def node_configuration(
    site: Site, folder: Path, *, api_key: str, port: int, private_key: Path | None, images: Sequence[str]
) -> dict[str, Any]:
    """Configuration of a node that keeps what it writes in `folder` and may run `images`; a key: it encrypts."""
    found = template("node_configuration.yaml", *(["algorithm_device_requests"] if site.gpu else []))
    found |= {"api_key": api_key, "server_url": "http://127.0.0.1", "port": port}
    found["directories"] = {"log": str(folder / "log"), "data": str(folder)}
    forms = {entry["type"]: entry for entry in template("node_configuration.yaml", "- {label: registry")["databases"]}
    found["databases"] = [database(label, uri, forms) for label, uri in site.databases.items()]
    if site.models is not None:
        options = "- {label: models", "V6_ALGORITHM_MODEL_FOLDER"
        asked = template("node_configuration.yaml", *options)
        (entry,) = (entry for entry in asked["databases"] if entry["label"] == "models")
        found["databases"].append({**entry, "uri": str(site.models)})
    if site.guards is not None:
        # What a network gives is compared with `run`, bit for bit; under other presets a node draws folds of its own.
        found["algorithm_env"] = {"V6_ALGORITHM_POLICY": "trusted", **site.guards}
    if site.models is not None:
        found["algorithm_env"]["V6_ALGORITHM_MODEL_FOLDER"] = asked["algorithm_env"]["V6_ALGORITHM_MODEL_FOLDER"]
    # Images of the tests are in no registry.
    found["policies"] |= {"allowed_algorithms": list(images), "require_algorithm_pull": False, **site.policies}
    if private_key is None:
        found["encryption"] = {"enabled": False, "private_key": ""}
    else:
        found["encryption"]["private_key"] = str(private_key)
    return found


def database(label: str, uri: Path | str, forms: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """An entry for `databases`, in the form that the template has for its type."""
    if "://" in str(uri):
        return {**forms["sql"], "label": label, "uri": str(uri)}
    if Path(uri).is_dir():
        return {**forms["folder"], "label": label, "uri": str(uri)}
    kinds = {".csv": "csv", ".parquet": "parquet", ".xlsx": "excel"}
    return {**forms["csv"], "type": kinds[Path(uri).suffix], "label": label, "uri": str(uri)}


def write_yaml(path: Path, content: Mapping[str, Any]) -> None:
    """Write a configuration file that only its owner can read, for it holds keys and perhaps a password."""
    path.touch(mode=0o600)
    path.write_text(yaml.safe_dump(dict(content), sort_keys=False))
