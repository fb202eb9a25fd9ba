"""`v6-algorithm partition`: what it leaves in the folder, and that it can be run."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest
import yaml
from hospitals import command

from v6_algorithm.engines.simulation.simulate import tables_of
from v6_algorithm.experiment import Experiment

TEMPLATE = Path(__file__).parents[3] / "config" / "node_configuration.yaml"


@pytest.fixture
def source(tmp_path):
    """A csv of 120 rows and 40 patients whose cells do not survive being read as numbers."""
    path = tmp_path / "ward.csv"
    lines = [f"{i // 3},{i * 7 % 90:03d},{i * 0.5:.2f},{'?' if i % 9 == 0 else i % 4},{i // 3 % 2}" for i in range(120)]
    path.write_text("\n".join(["patient,code,dose,grade,sick", *lines]) + "\n")
    return path


def cut(source, out, *options):
    result = command("partition", source, "--out", out, *options)
    assert result.exit_code == 0, result.output
    return result


def test_the_folder_has_a_table_and_a_node_for_each_site_an_experiment_and_a_page(source, tmp_path):
    result = cut(source, tmp_path / "out", "--sites", 3)
    found = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file()}
    names = ["site1", "site2", "site3"]
    assert found == {
        *(f"{name}.csv" for name in names), *(f"nodes/{name}.yaml" for name in names), "experiment.yaml",
        "partition.html",
    }  # fmt: skip
    assert re.search(r"site1 +│ +40 │ +33\.3%", result.output)


def test_the_cells_of_a_csv_stay_as_they_are(source, tmp_path):
    cut(source, tmp_path / "out", "--kind", "dirichlet", "--sites", 3, "--target", "sick")
    header, *rows = source.read_text().splitlines()
    files = [(tmp_path / "out" / f"site{i}.csv").read_text().splitlines() for i in (1, 2, 3)]
    assert {lines[0] for lines in files} == {header}
    assert sorted(line for lines in files for line in lines[1:]) == sorted(rows)


def test_a_parquet_file_is_cut_into_parquet_files_of_its_own_types(source, tmp_path):
    frame = pd.read_csv(source).astype({"dose": "float32", "sick": "int8"})
    frame.to_parquet(tmp_path / "ward.parquet")
    cut(tmp_path / "ward.parquet", tmp_path / "out", "--sites", 2, "--kind", "shards", "--target", "sick")
    parts = [pd.read_parquet(tmp_path / "out" / f"site{i}.parquet") for i in (1, 2)]
    assert all((part.dtypes == frame.dtypes).all() for part in parts)
    together = pd.concat(parts).sort_values(["patient", "code"], ignore_index=True)
    pd.testing.assert_frame_equal(together, frame.sort_values(["patient", "code"], ignore_index=True))


def test_the_experiment_that_is_written_runs_with_the_sites_that_run_cuts_itself(source, tmp_path):
    options = ["--kind", "dirichlet", "--sites", 3, "--target", "sick", "--group", "patient", "--seed", 5]
    cut(source, tmp_path / "out", *options)
    written = tables_of(Experiment.load(tmp_path / "out" / "experiment.yaml"), tmp_path / "out")
    partition = {"source": str(source), "partition": {"kind": "dirichlet", "sites": 3}}
    same = Experiment.parse({"seed": 5, "sites": partition, "data": {"target": "sick", "group": "patient"}})
    for name, table in tables_of(same, tmp_path).items():
        pd.testing.assert_frame_equal(written[name].read(), table.read(), check_dtype=False)
    result = command("validate", tmp_path / "out" / "experiment.yaml")
    assert result.exit_code == 0, result.output


def test_groups_are_at_one_site(source, tmp_path):
    cut(source, tmp_path / "out", "--kind", "grouped", "--by", "patient", "--sites", 4)
    patients = [set(pd.read_csv(tmp_path / "out" / f"site{i}.csv")["patient"]) for i in (1, 2, 3, 4)]
    assert sum(map(len, patients)) == 40


def test_a_plan_is_read_from_a_file_and_its_parts_are_a_column(source, tmp_path):
    plan = {
        "kind": "slices",
        "lists": {"sick": {"where": {"sick": "== 1"}}, "well": {"where": {"sick": "== 0"}}},
        "sites": {
            "St. Mary / 1": [
                {"list": "sick", "stop": 10, "part": "train"}, {"list": "well", "stop": 10, "part": "test"},
            ],
            "va": [{"list": "well", "start": 10, "part": "train"}],
        },
    }  # fmt: skip
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(plan))
    result = cut(source, tmp_path / "out", "--plan", tmp_path / "plan.yaml", "--target", "sick", "--group", "patient")
    content = yaml.safe_load((tmp_path / "out" / "experiment.yaml").read_text())
    assert content["sites"] == {"St. Mary / 1": {"uri": "St.-Mary-1.csv"}, "va": {"uri": "va.csv"}}
    assert content["data"] == {"target": "sick", "group": "patient", "split_column": "part"}
    own = pd.read_csv(tmp_path / "out" / "St.-Mary-1.csv")
    assert own.groupby("part")["sick"].unique().map(list).to_dict() == {"train": [1], "test": [0]}
    assert "30 of 120 rows are at no site" in result.output


def test_a_node_configuration_is_the_template_with_the_sites_file_and_columns(source, tmp_path):
    cut(source, tmp_path / "out", "--sites", 2)
    template = yaml.safe_load(TEMPLATE.read_text())
    node = yaml.safe_load((tmp_path / "out" / "nodes" / "site2.yaml").read_text())
    path = str((tmp_path / "out" / "site2.csv").resolve())
    assert node["databases"] == [{"label": "default", "type": "csv", "uri": path, "mount_mode": "ro"}]
    rule = node["algorithm_env"]["V6_ALGORITHM_ALLOWED_COLUMNS_REGEX"]
    assert all(re.fullmatch(rule, name) for name in ["patient", "code", "dose", "grade", "sick"])
    assert not re.fullmatch(rule, "address")
    changed = {"databases", "algorithm_env"}
    assert {key: node[key] for key in node.keys() - changed} == {
        key: template[key] for key in template.keys() - changed
    }


def test_nothing_but_the_databases_and_the_rule_on_columns_is_changed_in_the_template(source, tmp_path):
    cut(source, tmp_path / "out", "--sites", 2)
    node = (tmp_path / "out" / "nodes" / "site1.yaml").read_text().splitlines()
    lost = [line for line in TEMPLATE.read_text().splitlines() if line not in node]
    block = TEMPLATE.read_text().split("databases:\n")[1].split("\n\n")[0].splitlines()
    assert [line for line in lost if line not in block and "COLUMNS_REGEX" not in line] == []


def test_a_template_without_databases_is_refused(source, tmp_path):
    (tmp_path / "node.yaml").write_text("api_key: x\n")
    result = command(
        "partition", source, "--sites", 2, "--out", tmp_path / "o", "--node-template", tmp_path / "node.yaml"
    )
    assert result.exit_code == 2
    assert "has no `databases:`" in result.output


def test_the_page_draws_every_site_and_label_and_escapes_their_names(tmp_path):
    frame = pd.DataFrame({"y": ["<b>x</b>", "z"] * 20, "hospital": ["<i>a</i>", "b"] * 20})
    frame.to_csv(tmp_path / "t.csv", index=False)
    cut(tmp_path / "t.csv", tmp_path / "out", "--kind", "natural", "--by", "hospital", "--target", "y")
    page = (tmp_path / "out" / "partition.html").read_text()
    assert page.count("<circle") == 4
    assert "&lt;i&gt;a&lt;/i&gt;, &lt;b&gt;x&lt;/b&gt;: 20" in page
    assert "<b>x" not in page
    assert "<i>a" not in page


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--kind", "dirichelt", "--sites", 2], "unknown value 'dirichelt'"),
        (["--kind", "iid"], "--sites: is required with kind iid"),
        (["--sites", 2, "--set", "alpha=1"], "unknown key 'alpha'"),
        (["--kind", "dirichlet", "--sites", 2], "name their column as `by`, or the target"),
        (["--sites", 2, "--target", "outcome"], "--target outcome: there is no such column"),
        (["--sites", 2, "--group", "family"], "--group family: there is no such column"),
        (["--sites", 500], "500 sites need at least as many rows, the table has 120"),
    ],
)
def test_what_cannot_be_cut_is_told_and_leaves_nothing(source, tmp_path, options, message):
    result = command("partition", source, "--out", tmp_path / "out", *options)
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())
    assert not (tmp_path / "out").exists()


def test_a_file_that_is_not_there_is_named(tmp_path):
    result = command("partition", tmp_path / "none.csv", "--sites", 2, "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert "there is no file" in result.output


def test_a_bundled_table_can_be_cut_too(tmp_path):
    result = command(
        "partition", "builtin:breast_cancer", "--sites", 2, "--target", "target", "--out", tmp_path / "out"
    )
    assert result.exit_code == 0, result.output
    experiment = Experiment.load(tmp_path / "out" / "experiment.yaml")
    rows = [len(table.read()) for table in tables_of(experiment, tmp_path / "out").values()]
    assert sum(rows) == 569
