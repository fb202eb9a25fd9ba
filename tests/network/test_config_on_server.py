"""The templates in config/, given to vantage6's own import command."""

from __future__ import annotations

import os
import sqlite3
import subprocess
from pathlib import Path

import yaml

CONFIG = Path(__file__).parents[2] / "config"


def test_the_server_imports_the_templates(vantage6_python, tmp_path):
    settings = yaml.safe_load((CONFIG / "v6server.yaml").read_text())
    settings["uri"] = f"sqlite:///{tmp_path / 'server.sqlite'}"
    settings["directories"] = {"log": str(tmp_path), "data": str(tmp_path)}
    (tmp_path / "server.yaml").write_text(yaml.safe_dump(settings))

    command = [Path(vantage6_python).parent / "vserver-local", "import", "--user", "-c", tmp_path / "server.yaml"]
    environment = {**os.environ, "XDG_CONFIG_HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path)}
    subprocess.run([*command, CONFIG / "entities.yaml"], check=True, capture_output=True, env=environment, timeout=180)

    entities = yaml.safe_load((CONFIG / "entities.yaml").read_text())
    with sqlite3.connect(tmp_path / "server.sqlite") as database:
        organizations = [name for (name,) in database.execute("SELECT name FROM organization ORDER BY id")]
        keys = database.execute("SELECT count(*) FROM node").fetchone()
    assert organizations == [organization["name"] for organization in entities["organizations"]]
    assert keys == (len(entities["collaborations"][0]["participants"]),)
