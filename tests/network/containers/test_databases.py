"""Databases of other kinds than csv, in containers: every site keeps its patients in its own way."""

from __future__ import annotations

import pandas as pd
import pytest
from docker_cli import bridge_gateway
from figures import CONTAINERS, DIFFERENCE
from training import TOLERANCE, files, largest_difference, patients_experiment, rows_of, train, train_here
from v6config import Site

QUERY = "SELECT age, dose, outcome FROM patients WHERE admitted::time >= '08:00' ORDER BY number"
WRONG_PASSWORD = "not-the-password-of-v6"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def postgres(algorithm_image, make_postgres):
    return make_postgres(bridge_gateway())


@pytest.fixture(scope="module")
def tables(docker_network):
    """The patients as files, which is what they were before they went elsewhere."""
    return files(docker_network, "abc")


@pytest.fixture(scope="module")
def mixed(docker_network, postgres, tables, tmp_path_factory):
    """Site a has its patients in parquet, b in PostgreSQL, c in csv."""
    parquet = tmp_path_factory.mktemp("parquet") / "patients.parquet"
    pd.read_csv(tables["a"]).to_parquet(parquet)
    postgres.execute(
        "CREATE TABLE patients "
        "(number serial, admitted timestamp, age double precision, dose numeric(6, 2), outcome smallint)"
    )
    rows = pd.read_csv(tables["b"]).to_dict("records")
    insert = "INSERT INTO patients (admitted, age, dose, outcome) VALUES "
    postgres.execute(f"{insert} ('2026-01-02 09:30', %(age)s, %(dose)s, %(outcome)s)", rows)
    postgres.execute(f"{insert} ('2026-01-02 07:30', 0, 0, 0)")  # one the query leaves out
    addresses = {
        "default": postgres.uri(bridge_gateway()),
        "locked": postgres.uri(bridge_gateway(), WRONG_PASSWORD),
    }
    with docker_network.changed({"a": Site({"default": parquet}), "b": Site(addresses)}):
        yield docker_network


@pytest.fixture(scope="module")
def result(mixed):
    experiment = patients_experiment(participation={"minimum": 3, "deadline_s": 300})
    return train(mixed, experiment, databases=[{"label": "default", "query": QUERY}])


def test_parquet_sql_and_csv_train_together_as_if_all_were_csv(result, tables, figures):
    here = train_here(tables, result["experiment"])
    assert rows_of(result) == rows_of(here)
    difference = largest_difference(here, result)
    assert difference <= TOLERANCE
    figures.note(DIFFERENCE, CONTAINERS, f"{difference:.0e}")
    figures.note_rounds(CONTAINERS, result)


def test_a_query_that_deletes_is_refused_by_the_site_and_deletes_nothing(mixed, postgres):
    before = postgres.execute("SELECT count(*) FROM patients")
    with pytest.raises(RuntimeError, match="site 'b': the database cannot be read as sql"):
        train(
            mixed, patients_experiment(), databases=[{"label": "default", "query": "DELETE FROM patients RETURNING *"}]
        )
    assert postgres.execute("SELECT count(*) FROM patients") == before != [(0,)]


def test_a_wrong_password_is_told_without_the_password(mixed, postgres):
    databases = [{"label": "locked", "query": QUERY}]
    task = mixed.create("master", experiment=patients_experiment(), databases=databases)
    run = mixed.wait(task)["hub"]
    assert run.status == "crashed"
    assert "site 'b': the database cannot be read as sql" in run.log
    logs = [run.log, *(mixed.node_log(name) for name in mixed.sites)]
    logs += [r["log"] or "" for child in mixed.subtasks(task) for r in mixed.client.run.from_task(child["id"])["data"]]
    assert not [log for log in logs if WRONG_PASSWORD in log or postgres.password in log]
