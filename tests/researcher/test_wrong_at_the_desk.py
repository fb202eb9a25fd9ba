"""Commands that are given the wrong file, folder or option: one line names it and what was meant; exit code 2."""

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from v6_algorithm.researcher.cli import app

TABLE = "age,sex,ill\n" + "".join(f"{40 + row},{'fm'[row % 2]},{row % 2}\n" for row in range(30))


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("north.csv").write_text(TABLE)
    Path("south.csv").write_text(TABLE.replace("ill", "sick"))
    Path("empty.csv").write_text("")
    Path("heart.yaml").write_text("sites: {north: {uri: north.csv}, south: {uri: north.csv}}\ndata: {target: ill}\n")
    Path("survival.yaml").write_text(
        "sites: {source: builtin:made_survival, partition: {kind: iid, sites: 2}}\n"
        "data: {target: {duration: days, event: died}}\nproblem: survival\n"
    )
    Path("notes.yaml").write_text("a: b: c\n")
    Path("folder/inner").mkdir(parents=True)
    Path("folder/cohort.yaml").write_text("x: 1\n")
    Path("runs/first").mkdir(parents=True)
    Path("runs/first/result.json").write_text("{}")
    return tmp_path


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("run folder", "folder: is a folder; give a YAML file, such as cohort.yaml in it"),
        ("run notes.yaml", "notes.yaml: is not valid YAML: mapping values are not allowed here, line 1, column 5"),
        ("run heart.yaml --set rounds=two", "rounds: must be a whole number (given: 'two')"),
        ("run heart.yaml --set sites.north.uri=nort.csv", "there is no file nort.csv"),
        ("run heart.yaml --set sites.north.uri=nort.csv", "(did you mean 'north.csv'?)"),
        ("run heart.yaml --out north.csv", "--out north.csv: cannot be written: it is a file, not a folder"),
        (
            "run survival.yaml --set data.target.duration=dayz",
            "column 'dayz' is not in builtin:made_survival; it has: age,",
        ),
        ("init folder", "folder: is a folder; give the table in it"),
        ("init heart.yaml", "heart.yaml: is an experiment, as `init` writes; give tables: csv, parquet or xlsx"),
        ("init nort.csv", "there is no file nort.csv (did you mean 'north.csv'?)"),
        ("init north.csv south.csv --target ill", "is not in the table of south; it has: age, sex, sick"),
        ("partition nort.csv --out parts", "there is no file nort.csv (did you mean 'north.csv'?)"),
        ("partition north.csv --out parts", "--sites: is required with kind iid"),
        ("partition north.csv --out parts --kind dirichle", "--kind: unknown value 'dirichle' (did you mean"),
        (
            "partition north.csv --out parts --kind natural --by sex --sites 2",
            "--sites: does not go with kind natural;",
        ),
        ("partition builtin:wines --out parts", "error: unknown data set 'builtin:wines'; allowed: breast_cancer"),
        ("predict runs/frst north.csv", "runs/frst: there is no such file or folder (did you mean 'runs/first'?)"),
        ("predict folder north.csv", "folder: is a folder without model.safetensors"),
        ("predict north.csv north.csv", "error: north.csv: must be a .safetensors file"),
        ("report runs/frst", "runs/frst: there is no file or folder of that name (did you mean 'runs/first'?)"),
        ("report runs", "runs: holds no result.json; runs in it: first"),
        ("report folder", "folder: holds no result.json"),
        ("evaluate runs/first --data north.csv --subgroup age:x", "--subgroup age:x: must be COLUMN"),
        ("tune heart.yaml", "--try model=linear,mlp"),
        ("doctor --policy --table nort.csv", "there is no file nort.csv"),
    ],
)
def test_what_is_wrong_is_said_in_a_line_that_names_it(desk: Path, line: str, message: str) -> None:
    done = CliRunner().invoke(app, line.split())
    assert message in done.output
    assert done.exit_code == 2
    # Of rules, rounds or tables nothing was shown before.
    assert [line for line in done.output.splitlines() if not line.startswith("error: ")] == []


def test_a_file_that_is_named_is_named_once(desk: Path) -> None:
    for line in ("init empty.csv", "predict north.csv north.csv", "init nort.csv"):
        output = CliRunner().invoke(app, line.split()).output
        assert output.split("(")[0].count(line.split()[1]) == 1, output


def test_unset_rules_of_a_node_are_not_shown_as_false() -> None:
    from v6_algorithm.researcher.doctor.rules import _shown

    shown: Callable[..., str] = _shown
    assert [shown("pattern", False), shown("secret", True), shown("lines", 0), shown("lines", None)] == [
        "not set",
        "set",
        "0 listed",
        "no limit",
    ]
    assert [shown("switch", False), shown("whole", 5), shown("number", 1e-05)] == ["false", "5", "1e-05"]


@pytest.mark.parametrize(
    "line",
    [
        "init north.csv --target ill --name closed/heart",
        "run heart.yaml --out closed/run",
        "describe heart.yaml --out closed/new/description",
        "check heart.yaml --out closed/checks.json",
        "evaluate runs/first --data north.csv --out closed/later",
        "predict runs/first north.csv --out closed/predictions.csv",
        "tune heart.yaml --try model=linear,mlp --out closed/tuned --force",
        "partition north.csv --sites 2 --out closed/parts",
        "report runs/first runs/first --out closed/report.html",
    ],
)
def test_a_folder_that_may_not_be_written_to_is_told_before_anything_is_done(
    desk: Path, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("closed").mkdir()
    # Whoever runs the tests may write anywhere.
    monkeypatch.setattr("os.access", lambda path, mode, **_: "closed" not in str(path))
    done = CliRunner().invoke(app, line.split())
    assert "cannot be written: closed may not be written to" in done.output
    assert len(done.output.splitlines()) == 1
    assert done.exit_code == 2


def test_a_table_that_may_not_be_read_is_told_without_a_name_of_python(desk: Path) -> None:
    from v6_algorithm.data.sources import TableSource
    from v6_algorithm.errors import DataError

    with pytest.raises(DataError, match=r"^folder is a folder; a table is a file$"):
        TableSource("folder", type="csv").read()


def test_who_sent_a_task_to_the_network_of_this_machine_comes_back_to_it_without_its_password(
    desk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from types import SimpleNamespace

    from v6_algorithm.researcher import network
    from v6_algorithm.researcher.cli import connection
    from v6_algorithm.researcher.cli.submit import _again

    monkeypatch.setattr(network, "find", lambda folder: SimpleNamespace(url="http://127.0.0.1:9/api", password="p"))
    monkeypatch.setattr(connection, "_local", None)
    monkeypatch.setenv("V6_PASSWORD", "mine")
    monkeypatch.delenv("V6_AUTH", raising=False)
    assert connection.where("http://far/api", "ada", None, local=False) == ("http://far/api", "ada", "")
    assert _again("watch", 3, "http://far/api", "ada").endswith("watch 3 --server http://far/api --username ada")
    address, username, _ = connection.where("", "", None, local=True)
    assert _again("watch", 3, address, username) == "v6-algorithm watch 3 --local"
    done = CliRunner().invoke(app, ["watch", "3"], env={"V6_SERVER": "", "V6_USERNAME": ""})
    assert "--server, --username: missing; or --local" in done.output
    assert done.exit_code == 2
