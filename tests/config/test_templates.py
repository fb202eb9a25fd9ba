"""The files in config/: vantage6's own readers accept them, they fit together, and nothing in them is a secret."""

from __future__ import annotations

import base64
import os
import re
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import yaml

from v6_algorithm.site import policy
from v6_algorithm.site.rules import BY_VARIABLE, PRESET

pytest.importorskip("vantage6.cli", reason="the vantage6 CLI is not installed: pip install '.[dev]'")
from vantage6.algorithm.tools import util, wrap
from vantage6.cli.configuration_manager import NodeConfigurationManager, ServerConfigurationManager
from vantage6.common.globals import ENV_VAR_EQUALS_REPLACEMENT

CONFIG = Path(__file__).parents[2] / "config"
# vantage6/server/controller/fixture.py reads these without a default.
ORGANIZATION_FIELDS = {"name", "domain", "address1", "address2", "zipcode", "country", "public_key"}
USER_FIELDS = {"username", "firstname", "lastname", "password"}


def load(name: str) -> dict[str, Any]:
    return yaml.safe_load((CONFIG / name).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def entities() -> dict[str, Any]:
    return load("entities.yaml")


@pytest.fixture(scope="module")
def node() -> dict[str, Any]:
    return load("node_configuration.yaml")


@pytest.fixture(scope="module")
def server() -> dict[str, Any]:
    return load("v6server.yaml")


def test_vantage6_accepts_the_node_configuration(node):
    assert NodeConfigurationManager.from_file(CONFIG / "node_configuration.yaml").get() == node


def test_vantage6_accepts_the_server_configuration(server):
    assert ServerConfigurationManager.from_file(CONFIG / "v6server.yaml").get() == server
    assert server["api_path"], "optional in the schema, but the server reads it unconditionally"


def test_entities_have_every_field_the_import_reads(entities):
    for organization in entities["organizations"]:
        assert set(organization) - {"users"} == ORGANIZATION_FIELDS
        for user in organization.get("users", []):
            assert set(user) == USER_FIELDS


def test_participants_are_organizations_with_a_canonical_key_each(entities):
    names = {organization["name"] for organization in entities["organizations"]}
    for collaboration in entities["collaborations"]:
        participants = collaboration["participants"]
        assert {p["name"] for p in participants} <= names
        assert all(str(UUID(p["api_key"])) == p["api_key"] for p in participants)
        assert len({p["api_key"] for p in participants}) == len(participants)


def test_node_belongs_to_the_collaboration_and_agrees_with_it(node, entities, server):
    collaboration = entities["collaborations"][0]
    assert node["api_key"] in {p["api_key"] for p in collaboration["participants"]}
    assert node["encryption"]["enabled"] == collaboration["encrypted"], "else the node stops at its start"
    assert node["api_path"] == server["api_path"]


def test_database_labels_can_be_variables_and_hide_no_folder_of_the_node(node):
    labels = [database["label"] for database in node["databases"]]
    assert all(label.isidentifier() for label in labels)
    assert not {"data", "tmp"} & set(labels), "they would be mounted over /mnt/data and /mnt/tmp"
    assert len(set(labels)) == len(labels)


def test_node_mounts_its_data_read_only(node):
    assert {database["mount_mode"] for database in node["databases"]} == {"ro"}
    # `v6 node start` refuses `ro` for any other type.
    assert {database["type"] for database in node["databases"]} <= {"csv", "parquet", "excel", "folder"}


def test_the_node_names_its_preset_and_only_rules_that_v6_algorithm_reads(node):
    assert node["algorithm_env"][PRESET] == "standard"
    assert set(node["algorithm_env"]) <= {PRESET, *BY_VARIABLE}
    assert policy.Policy.from_environment({name: str(value) for name, value in node["algorithm_env"].items()})


def test_guards_survive_the_way_into_the_container(node, monkeypatch):
    guards = {name: str(value) for name, value in node["algorithm_env"].items()}
    encoded = {name: as_the_node_encodes(value) for name, value in guards.items()}
    assert encoded != guards

    monkeypatch.setattr(os, "environ", encoded)
    wrap._decode_env_vars()
    assert os.environ == guards
    # vantage6's own get_env_var decodes once more; a value of only A-Z and 2-7 would not come through.
    assert {name: util.get_env_var(name) for name in guards} == guards

    rules = policy.Policy.from_environment(os.environ)
    assert (rules.minimum_rows, rules.minimum_sites) == (10, 3)
    assert rules.allows("age")
    assert not rules.allows("age_of_mother")


def test_the_columns_that_the_node_allows_are_those_of_the_heart_example(node):
    data = yaml.safe_load((CONFIG.parent / "mock" / "heart.yaml").read_text(encoding="utf-8"))["data"]
    rules = policy.Policy.from_environment({name: str(value) for name, value in node["algorithm_env"].items()})
    assert all(rules.allows(column) for column in [*data["features"], data["target"]])


def test_the_node_lets_in_no_image_until_its_digest_is_filled_in(node):
    (allowed,) = node["policies"]["allowed_algorithms"]
    name, _, digest = allowed.partition("@sha256:")
    assert digest == "replace"
    assert not re.search(r"[*\\?$^\[\](){}|+]", name), "vantage6 would read it as a regular expression"


def test_the_node_keeps_its_column_names(node):
    """vantage6 would send them all to the server at each start."""
    assert node["share_config"] is False


def test_the_node_encrypts_unless_told_otherwise(node, entities):
    assert node["encryption"]["enabled"]
    assert entities["collaborations"][0]["encrypted"]


OPTIONS = re.compile(r"(?m)^( *)# ((?:- \{|[a-z_]+:(?= [\[{]|\n)).*)$")


@pytest.mark.parametrize(
    ("name", "manager", "options"),
    [
        ("node_configuration.yaml", NodeConfigurationManager, 6),
        ("v6server.yaml", ServerConfigurationManager, 2),
    ],
)
def test_vantage6_also_accepts_what_the_templates_have_as_comments(name, manager, options, tmp_path):
    text, uncommented = OPTIONS.subn(r"\1\2", (CONFIG / name).read_text(encoding="utf-8"))
    assert uncommented == options
    (tmp_path / name).write_text(text)
    found = manager.from_file(tmp_path / name).get()
    assert len(found) > len(load(name)) or len(found["databases"]) > len(load(name)["databases"])


def test_the_template_says_how_a_ledger_lasts_and_strict_is_content_with_it():
    text = re.sub(r"(?m)^( *)# (- \{label: ledger|V6_)", r"\1\2", (CONFIG / "node_configuration.yaml").read_text())
    node = yaml.safe_load(text)
    (ledger,) = (database for database in node["databases"] if database["label"] == "ledger")
    assert (ledger["type"], ledger.get("mount_mode")) == ("folder", None), "vantage6 mounts it to write to"
    rules = {name: str(value) for name, value in node["algorithm_env"].items()} | {PRESET: "strict"}
    for looser in ("RECORDS", "RECORDS_PER_PART"):
        del rules[f"V6_ALGORITHM_MINIMUM_NUMBER_OF_{looser}"]
    del rules["V6_ALGORITHM_MINIMUM_CELL_SIZE"]
    strict = policy.Policy.from_environment(rules)
    assert strict.ledger_folder == f"/mnt/{ledger['label']}"
    strict.check_ledger()


def as_the_node_encodes(value: str) -> str:
    """As `_encode_environment_variables` in vantage6/node/docker/task_manager.py does, which imports Flask and more."""
    return base64.b32encode(value.encode()).decode().replace("=", ENV_VAR_EQUALS_REPLACEMENT)


@pytest.mark.parametrize("name", sorted(path.name for path in CONFIG.glob("*.yaml")))
def test_template_holds_nothing_that_looks_secret(name):
    text = (CONFIG / name).read_text(encoding="utf-8")
    for key in re.findall(r"\b[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\b", text):
        assert UUID(key).int < 100, f"{name} holds an API key"
    assert not re.search(r"[A-Za-z0-9+/=]{32,}", text.replace("/path/to/", "")), f"{name} holds a long random text"
    assert not re.search(r"BEGIN [A-Z ]*PRIVATE KEY", text)
    for path, value in leaves(load(name)):
        if re.search(r"password|secret|token|private_key|connection_string", path):
            assert value in ("", None) or str(value).startswith(("replace", "/path/to/")), f"{path} in {name}"
        assert not re.search(r"//[^/\s]+:[^/\s]+@", str(value)), f"{path} in {name} holds a log-in"


def leaves(value: Any, path: str = "") -> list[tuple[str, Any]]:
    """Every scalar of a YAML document with the path of keys that leads to it."""
    if isinstance(value, dict):
        return [leaf for key, part in value.items() for leaf in leaves(part, f"{path}.{key}")]
    if isinstance(value, list):
        return [leaf for number, part in enumerate(value) for leaf in leaves(part, f"{path}.{number}")]
    return [(path, value)]
