"""The templates in config/ as a server takes them: vantage6's own import command, and a PostgreSQL under the server."""

from __future__ import annotations

import os
import sqlite3
import subprocess
from pathlib import Path

import pytest
import yaml
from training import patients_experiment, train

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


@pytest.mark.slow
def test_the_server_of_the_template_keeps_everything_in_postgresql(make_postgres, make_network, three_sites):
    postgres = make_postgres()
    # As the template advises: the address without the password, which only the server's environment has.
    network = make_network(
        {name: three_sites.sites[name] for name in "ab"},
        database_uri=postgres.uri(password=""),
        server_environment={"PGPASSWORD": postgres.password},
    )
    result = train(network, patients_experiment(rounds=1, resident=False))
    assert (result["status"], sorted(result["sites"])) == ("completed", ["a", "b"])
    # master; columns, statistics and evaluation at every site that is asked, one round of training.
    assert postgres.execute("SELECT status, count(*) FROM run GROUP BY status") == [("completed", 1 + 3 + 2 + 2 + 2)]
    assert not list(network.folder.rglob("*.sqlite"))
    assert postgres.password not in network.server_log()

    network.stop_server()
    network.start_server()
    assert network.client.organization.list(collaboration=network.collaboration)["data"]
