"""Sites on a local Ray cluster of several processes: the numbers of one process."""

import os
import signal
import sys

import pytest
from hospitals import make_table
from test_ways import SAME

from v6_algorithm.coordinator.master import run
from v6_algorithm.data.sources import TableSource
from v6_algorithm.engines.simulation.simulate import local_federation, ray_federation
from v6_algorithm.errors import ExperimentError


@pytest.mark.slow
def test_ray_gives_the_bits_of_one_process_from_files_and_frames(make_experiment, tmp_path, monkeypatch):
    pytest.importorskip("ray", reason="ray is not installed: pip install 'v6-algorithm[ray]'")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    frames = {f"site{number}": make_table(30 + number, number) for number in range(4)}
    frames["site0"].to_csv(tmp_path / "site0.csv", index=False)
    monkeypatch.chdir(tmp_path)
    tables = {name: TableSource(frame=frame) for name, frame in frames.items()} | {"site0": TableSource("site0.csv")}
    experiment = make_experiment(rounds=4, participation={"minimum": 1})
    expected = run(local_federation(experiment, tables, way="exact"), experiment)
    federation = ray_federation(experiment, tables, way="exact", workers=2)
    try:
        given = run(federation, experiment)
        assert [given[key] for key in SAME] == [expected[key] for key in SAME]
        assert given["engine"] == {"engine": "ray", "way": "exact", "workers": 2, "threads": 1}

        import ray

        actors = federation._crew
        assert len({*actors._names, f"process {os.getpid()} on {os.uname().nodename}"}) == 3
        assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
        assert ray.is_initialized()

        def kill(event):
            if event["event"] == "round" and event["round"] == 1:
                os.kill(int(actors._names[1].split()[1]), signal.SIGKILL)

        lost = run(federation, experiment, kill)
        assert lost["status"] == "completed"
        missing = lost["participation"][-1]["missing"]
        assert set(missing) == {site for site, worker in federation._worker_of.items() if worker == 1}
        assert all(reason.startswith("crashed: worker 2 of 2 (process ") for reason in missing.values())
    finally:
        federation.close()


def test_without_ray_the_extra_is_named(make_experiment, tables, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ExperimentError, match=r"--engine ray needs Ray: pip install 'v6-algorithm\[ray\]'"):
        ray_federation(make_experiment(), tables)
