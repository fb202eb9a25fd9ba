"""The self test: what it finds here, what it says of a machine with something wrong, and what it must never say."""

from __future__ import annotations

import json
import sqlite3
import sys
from contextlib import closing
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hospitals import command

from v6_algorithm.researcher import doctor
from v6_algorithm.researcher.doctor import environment, hardware, software, trial
from v6_algorithm.researcher.doctor.finding import Finding, named, ok, size
from v6_algorithm.researcher.doctor.server import server

SECRET = "SECRET-4711"


@pytest.fixture(autouse=True)
def no_node(monkeypatch):
    """Variables of a node or an image are set by the tests that want them."""
    guards = [value for name, value in vars(environment.policy).items() if str(value).startswith("V6_ALGORITHM_")]
    for name in ("TEMPORARY_FOLDER", "PKG_NAME", *guards):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def image(monkeypatch):
    """As in the algorithm's image."""
    monkeypatch.setenv("PKG_NAME", "v6_algorithm")


def findings(check: Any) -> list[Finding]:
    return list(named("check", check()))


def only(check: Any) -> Finding:
    (finding,) = findings(check)
    return finding


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    """The whole self test, as a script reads it."""
    result = command("doctor", "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


# -- the whole of it -----------------------------------------------------------------------------------------------


def test_this_machine_is_usable_and_every_check_has_said_something(report):
    assert (report["schema"], report["usable"]) == (1, True)
    assert {finding["name"] for finding in report["findings"]} == set(doctor._CHECKS)
    assert all(finding["advice"] for finding in report["findings"] if finding["status"] != "ok")


def test_versions_are_those_installed(report):
    assert report["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
    for name in ("v6-algorithm", "torch", "numpy", "pandas", "vantage6-algorithm-tools", "pyarrow"):
        assert report["versions"][name] == version(name)


def test_details_are_numbers_that_a_script_can_compare(report):
    details = {finding["name"]: finding["details"] for finding in report["findings"]}
    assert details["cpu"]["cores"] >= 1
    assert details["memory"]["total_bytes"] > 1e8
    assert details["readers"]["works"] == ["csv", "parquet", "excel", "sqlite"]
    assert set(details["functions"]["names"]) >= {"master", "RPC_prepare", "RPC_train", "RPC_evaluate"}


def cheap(monkeypatch, *checks):
    """Leave only these checks, for tests of what is made of them."""
    monkeypatch.setattr(doctor, "_CHECKS", {f"check{number}": check for number, check in enumerate(checks)})


def test_a_line_a_finding_and_a_verdict(monkeypatch):
    cheap(monkeypatch, lambda: ok("2 cores"), lambda: environment.note("[/] is odd", "do [this]"))
    result = command("doctor")
    assert result.exit_code == 0
    assert [line.split() for line in result.output.splitlines()] == [
        ["ok", "check0", "2", "cores"],
        ["note", "check1", "[/]", "is", "odd"],
        ["do", "[this]"],
        ["usable"],
    ]


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_problem_ends_with_exit_code_3(monkeypatch, options):
    cheap(monkeypatch, lambda: environment.problem("broken", "mend it"))
    result = command("doctor", *options)
    assert result.exit_code == 3
    assert "broken" in result.output
    assert "mend it" in result.output


def test_a_check_that_fails_unforeseen_is_a_problem_without_the_librarys_words(monkeypatch):
    def fails():
        raise RuntimeError(SECRET)

    cheap(monkeypatch, fails, lambda: ok("goes on"))
    result = command("doctor")
    assert result.exit_code == 3
    assert "the check ended in RuntimeError" in result.output
    assert "goes on" in result.output
    assert SECRET not in result.output


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_values_of_variables_are_never_shown(monkeypatch, image, options):
    monkeypatch.setenv("DEFAULT_DATABASE_URI", f"postgresql://user:{SECRET}@host/name")
    monkeypatch.setenv("API_KEY", SECRET)
    monkeypatch.setenv(environment.policy.ALLOWED_COLUMNS, f"({SECRET}")
    monkeypatch.setenv("GROUP", "ABCDEFGH")
    monkeypatch.setattr(doctor, "_CHECKS", {name: doctor._CHECKS[name] for name in ("folders", "variables", "guards")})
    result = command("doctor", *options)
    assert result.exit_code == 3
    assert "GROUP" in result.output
    assert SECRET not in result.output
    assert "ABCDEFGH" not in result.output


# -- software ------------------------------------------------------------------------------------------------------


def test_a_format_without_its_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    finding = only(software.readers)
    assert (finding.status, finding.message) == ("note", "excel cannot be read")
    assert "pip install" in finding.advice
    assert finding.details["works"] == ["csv", "parquet", "sqlite"]


def test_what_a_laptop_may_lack_the_image_must_have(monkeypatch, image):
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    monkeypatch.setattr(software, "_version", lambda name: None)
    assert only(software.readers).status == "problem"
    assert only(software.vantage6).status == "problem"


def test_a_laptop_without_vantage6_is_usable(monkeypatch):
    monkeypatch.setattr(software, "_version", lambda name: None)
    assert only(software.vantage6).status == "note"


@pytest.mark.parametrize(("version", "status"), [("4.15.2", "ok"), ("5.0.3", "ok"), ("6.0.0", "problem")])
def test_tools_of_a_vantage6_that_is_not_known_are_a_problem_in_the_image(monkeypatch, image, version, status):
    monkeypatch.setattr(software, "_version", lambda name: version)
    assert only(software.vantage6).status == status


def test_a_module_that_the_wrapper_could_not_import_is_a_problem(monkeypatch):
    monkeypatch.setenv("PKG_NAME", "no_such_package")
    finding = only(software.functions)
    assert (finding.status, finding.message) == ("problem", "no_such_package cannot be imported (ModuleNotFoundError)")


def test_a_plug_in_that_does_not_load_is_named(monkeypatch):
    def load():
        raise ImportError(SECRET)

    monkeypatch.setattr(software, "entry_points", lambda group: [SimpleNamespace(name="triage", load=load)])
    finding = only(software.plug_ins)
    assert (finding.status, finding.message) == ("problem", "cannot be loaded: triage (ImportError)")


# -- GPU -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def machine(monkeypatch):
    """`machine(cuda=…, driver=…, available=…)`: a machine with this torch build, driver and GPU."""

    def make(cuda: str | None, driver: str | None, available: bool = False, works: bool = True) -> Finding:
        def ones(*shape, device):
            assert device == "cuda:0"
            if not works:
                raise RuntimeError("no kernel image is available for execution on the device")
            return torch.full(shape, 1.0)

        fake = SimpleNamespace(
            version=SimpleNamespace(cuda=cuda),
            ones=ones,
            cuda=SimpleNamespace(
                is_available=lambda: available,
                device_count=lambda: 1,
                get_device_properties=lambda number: SimpleNamespace(name="H100", total_memory=85_000_000_000),
            ),
        )
        monkeypatch.setitem(sys.modules, "torch", fake)
        monkeypatch.setattr(hardware, "_driver", lambda: driver)
        return only(hardware.gpu)

    return make


@pytest.mark.parametrize(
    ("cuda", "driver", "status", "says"),
    [
        (None, None, "ok", "CPU build"),
        (None, "580.1", "note", "-cuda"),
        ("13.0", None, "note", "algorithm_device_requests"),
        ("13.0", "525.60", "problem", "update NVIDIA's driver"),
    ],
)
def test_without_a_gpu_it_says_what_is_in_the_way(machine, cuda, driver, status, says):
    finding = machine(cuda, driver)
    assert finding.status == status
    assert says in f"{finding.message} {finding.advice}"


def test_a_gpu_is_named_with_its_memory_and_driver(machine):
    finding = machine("13.0", "580.95", available=True)
    assert (finding.status, finding.message) == ("ok", "H100 (85 GB); driver 580.95, CUDA 13.0")


def test_a_gpu_that_this_torch_has_no_code_for_is_a_problem(machine):
    finding = machine("13.0", "580.95", available=True, works=False)
    assert finding.status == "problem"
    assert "cannot compute on H100" in finding.message


@pytest.mark.parametrize(
    ("text", "driver"),
    [
        (
            "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC\nGCC version:",
            "550.54.15",
        ),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release Build", "580.95.05"),
    ],
)
def test_the_drivers_version_is_read_from_the_kernel(tmp_path, monkeypatch, text, driver):
    (tmp_path / "version").write_text(text)
    monkeypatch.setattr(hardware, "_DRIVER", tmp_path / "version")
    assert hardware._driver() == driver


# -- processors and memory -----------------------------------------------------------------------------------------


@pytest.fixture
def cgroup(tmp_path, monkeypatch):
    """`cgroup({"cpu.max": "…"})`: the limits of a container."""

    def make(files: dict[str, str]) -> None:
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(text)

    monkeypatch.setattr(hardware, "_CGROUP", tmp_path)
    return make


LIMITS = {
    "version 2": ({"cpu.max": "150000 100000\n", "memory.max": "800000000\n"}, 1.5, 800_000_000),
    "version 2, none": ({"cpu.max": "max 100000\n", "memory.max": "max\n"}, None, None),
    "version 1": (
        {
            "cpu/cpu.cfs_quota_us": "150000",
            "cpu/cpu.cfs_period_us": "100000",
            "memory/memory.limit_in_bytes": "800000000",
        },
        1.5,
        800_000_000,
    ),
    "version 1, none": (
        {
            "cpu/cpu.cfs_quota_us": "-1",
            "cpu/cpu.cfs_period_us": "100000",
            "memory/memory.limit_in_bytes": "9223372036854771712",
        },
        None,
        None,
    ),
    "no cgroup": ({}, None, None),
}


@pytest.mark.parametrize("kind", LIMITS)
def test_the_containers_limits_are_read(cgroup, kind):
    files, cores, memory_bytes = LIMITS[kind]
    cgroup(files)
    assert only(hardware.cpu).details["limit"] == cores
    assert only(hardware.memory).details["limit_bytes"] == memory_bytes


def test_more_threads_than_the_container_has_cores_is_told(cgroup, monkeypatch):
    cgroup({"cpu.max": "100000 100000"})
    monkeypatch.setattr(torch, "get_num_threads", lambda: 16)
    finding = only(hardware.cpu)
    assert finding.status == "note"
    assert "OMP_NUM_THREADS=1" in finding.advice


def test_little_memory_is_told(cgroup):
    cgroup({"memory.max": "800000000"})
    finding = only(hardware.memory)
    assert (finding.status, finding.message) == ("note", "800 MB (the limit of this container)")


def test_a_machine_without_shared_memory_is_fine(monkeypatch, tmp_path):
    monkeypatch.setattr(hardware, "_SHARED_MEMORY", str(tmp_path / "none"))
    assert only(hardware.shared_memory).status == "ok"


@pytest.mark.parametrize(
    ("count", "text"),
    [(500, "0 kB"), (67_108_864, "67 MB"), (999_600_000, "1.0 GB"), (1_140_000_000, "1.1 GB"), (85e9, "85 GB")],
)
def test_sizes_are_in_powers_of_ten_as_dockers_are(count, text):
    assert size(count) == text


# -- folders, variables, guards ------------------------------------------------------------------------------------


def test_the_nodes_folder_is_only_looked_at_where_there_is_one(monkeypatch, tmp_path):
    assert [finding.details["folder"] for finding in findings(environment.folders)] == ["home", "tmp"]
    monkeypatch.setenv("TEMPORARY_FOLDER", str(tmp_path))
    assert findings(environment.folders)[0].details["path"] == str(tmp_path)


@pytest.mark.parametrize(("variable", "status"), [("TEMPORARY_FOLDER", "problem"), ("HOME", "note")])
def test_a_folder_that_cannot_be_written_to_is_named(monkeypatch, tmp_path, variable, status):
    monkeypatch.setenv(variable, str(tmp_path / "none"))
    (finding,) = (finding for finding in findings(environment.folders) if finding.status != "ok")
    assert finding.status == status
    assert f"{tmp_path / 'none'} cannot be written to" in finding.message


def test_no_folder_for_temporary_files_at_all_is_a_problem(monkeypatch):
    """torch's optimisers do not even load then."""

    def nowhere():
        raise FileNotFoundError

    monkeypatch.setattr(environment.tempfile, "gettempdir", nowhere)
    (finding,) = (finding for finding in findings(environment.folders) if finding.status == "problem")
    assert "TMPDIR" in finding.advice


@pytest.mark.parametrize(
    ("value", "status"), [("lower", "ok"), ("AGEGROUP", "problem"), ("GEZDGNBV", "note"), ("", "ok"), ("1", "ok")]
)
def test_a_value_that_the_wrapper_would_decode_is_found_by_name(monkeypatch, image, value, status):
    for name in environment.os.environ:
        if name not in ("PATH", "PKG_NAME", "PYTEST_CURRENT_TEST"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("LEVEL", value)
    finding = only(environment.variables)
    assert finding.status == status
    assert finding.details.get("names", []) == ([] if status == "ok" else ["LEVEL"])


def test_outside_the_image_nothing_is_decoded(monkeypatch):
    monkeypatch.setenv("LEVEL", "AGEGROUP")
    assert only(environment.variables).status == "ok"


def test_guards_that_cannot_be_read_are_a_problem(monkeypatch):
    monkeypatch.setenv(environment.policy.MINIMUM_SITES, "three")
    finding = only(environment.guards)
    assert finding.status == "problem"
    assert environment.policy.MINIMUM_SITES in finding.message
    monkeypatch.setenv(environment.policy.MINIMUM_SITES, "3")
    assert only(environment.guards).message == environment.policy.MINIMUM_SITES


def test_a_nodes_guards_do_not_stop_the_made_up_experiment(monkeypatch):
    monkeypatch.setenv(environment.policy.MINIMUM_ROWS, "100000")
    assert only(trial.training).status == "ok"


def test_the_self_test_leaves_nothing_behind(monkeypatch, tmp_path):
    monkeypatch.setenv("TEMPORARY_FOLDER", str(tmp_path))
    monkeypatch.setattr(environment.tempfile, "tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert not [finding for finding in [*findings(software.readers), *findings(environment.folders)] if finding.advice]
    assert list(Path(tmp_path).iterdir()) == []


@pytest.mark.parametrize("indexed", [False, True])
def test_a_server_with_sqlite_is_told_that_rounds_grow_slower_and_what_helps(tmp_path, indexed):
    file, config = tmp_path / "v6.sqlite", tmp_path / "server.yaml"
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE run (id INTEGER PRIMARY KEY, task_id INTEGER, input TEXT)")
        if indexed:
            connection.execute("CREATE INDEX run_task ON run(task_id)")
        connection.commit()
    config.write_text(f"uri: sqlite:///{file}\nruns_data_cleanup_days: 14\n")
    database, kept = server(config)
    assert kept.status == "ok"
    assert database.status == ("ok" if indexed else "note")
    assert ("grow slower" in database.message) is not indexed
    assert (
        "PostgreSQL" in database.advice and "CREATE INDEX run_task ON run(task_id)" in database.advice
    ) is not indexed


def test_doctor_looks_at_a_server_by_its_configuration_and_tells_no_password(tmp_path):
    config = tmp_path / "server.yaml"
    config.write_text(f"uri: postgresql://v6:{SECRET}@db/v6\n")
    done = command("doctor", "--server-config", str(config))
    assert done.exit_code == 0
    assert "the database is postgresql" in done.output
    assert "runs_data_cleanup_days is not set" in done.output
    assert SECRET not in done.output
    config.write_text("- a list")
    done = command("doctor", "--server-config", str(config))
    assert done.exit_code == 2
    assert "is no server's configuration" in done.output
