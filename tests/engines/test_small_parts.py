"""Small parts of the engines: sizes and ends of workers, which requests go as text, subtasks that were not created."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pandas as pd
import pytest
import torch

from v6_algorithm.coordinator.strategies.robust.geometric import _weighted_median
from v6_algorithm.coordinator.strategies.robust.updates import weights_for
from v6_algorithm.data.sources import TableSource
from v6_algorithm.engines import vantage6_v4, workers
from v6_algorithm.engines.local import texts_of
from v6_algorithm.engines.resident import courier
from v6_algorithm.engines.subtasks import Creation
from v6_algorithm.exchange.protocol import Missing
from v6_algorithm.site.kept_terms import KeptTerm


def test_a_table_is_as_large_as_its_numbers_or_its_file(tmp_path):
    assert workers._size(TableSource(frame=pd.DataFrame({"a": [1, 2, 3], "b": [0, 0, 0]}))) == 48
    (tmp_path / "table.csv").write_text("a\n1\n", encoding="utf-8")
    assert workers._size(TableSource(str(tmp_path / "table.csv"))) == 4
    assert workers._size(TableSource(str(tmp_path / "gone.csv"))) == 0


def test_workers_share_the_cores(monkeypatch):
    monkeypatch.setattr(workers, "cores", lambda: 6)
    assert [workers.threads_of(number) for number in (1, 2, 4, 6, 7)] == [6, 3, 1, 1, 1]


@pytest.mark.parametrize(
    ("code", "how"),
    [
        (None, "ended"), (0, "ended with exit code 0"), (3, "ended with exit code 3"), (-15, "was ended by SIGTERM"),
        (-9, "was ended by SIGKILL, as where memory runs out"), (-63, "was ended by signal 63"),
    ],
)  # fmt: skip
def test_how_a_worker_ended_is_said(code, how):
    if code is not None and -code in {*map(int, signal.Signals)}:
        assert signal.Signals(-code).name in how
    crew = object.__new__(workers.Processes)
    crew._processes = [SimpleNamespace(pid=17, exitcode=code, join=lambda patience: None)]
    crew._sites = [["a", "b"]]
    text = crew._how_ended(0)
    assert "process 17" in text
    assert how in text
    assert ("exit code" in how) == ("exit code" in text)


@pytest.mark.parametrize(
    ("way", "method", "rounds", "told"),
    [
        ("wire", "train", (5, 5), {"a", "b"}), ("exact", "prepare", (5, 5), {"a", "b"}),
        ("exact", "train", (1, 1), {"a", "b"}), ("exact", "train", (2, 2), set()), ("fast", "train", (0, 2), {"a"}),
        ("fast", "evaluate", (2, 2), {"a"}),
    ],
)  # fmt: skip
def test_which_sites_are_asked_in_text(way, method, rounds, told):
    requests = {site: {"round": number} for site, number in zip("ab", rounds, strict=True)}
    assert texts_of(way, method, requests) == told
    assert texts_of(way, method, {}) == set()
    hidden = {site: request | {"secure_aggregation": {}} for site, request in requests.items()}
    assert texts_of(way, method, hidden) == {"a", "b"}


class Federation(vantage6_v4.Vantage6Federation):
    """Of a server that takes no subtask of sites that are away."""

    def __init__(self, known):
        self._newest, self._real, self._poll_s = 0, True, 0.0
        self._children = SimpleNamespace(take=known.get)
        self.asked = []

    def _ask(self, creation):
        self.asked.append(creation.question)
        return {"id": 30 + len(self.asked)} if creation.question != "away" else Missing("unreachable", "away")


def creation(question, characters=10):
    return Creation("RPC_train", {"round": 1, "site": question}, 3, question, characters)


@pytest.mark.parametrize("characters", [10, vantage6_v4._CHARACTERS_AT_ONCE])
def test_subtasks_are_created_or_taken_and_the_newest_is_known(characters):
    made = Federation({"known": 21})
    assert made._create_at_once({}) == {}
    assert made._newest == 0
    away = {"x": creation("away", characters)}
    assert str(made._create_at_once(away)["x"]).endswith("away")
    assert made._newest == 0
    several = {name: creation(name, characters) for name in ("known", "b", "c")}
    assert made._create_at_once(several) == {"known": None, "b": None, "c": None}
    assert several["known"].task == 21
    assert sorted([several["b"].task, several["c"].task]) == [32, 33]
    assert made._newest == 33
    made._create_at_once({"known": creation("known")})
    assert made._newest == 33


@pytest.mark.parametrize(
    ("strategy", "hides", "keeps"),
    [("scaffold", True, True), ("feddyn", True, True), ("fedavg", True, False), ("scaffold", False, False),
     ("fedavg", False, False)],
)  # fmt: skip
def test_a_site_keeps_a_term_where_sums_hide_it_and_the_strategy_has_one(monkeypatch, strategy, hides, keeps):
    monkeypatch.setattr(KeptTerm, "__init__", lambda self, *given: None)
    privacy = SimpleNamespace(secure_aggregation={} if hides else None)
    given = SimpleNamespace(experiment=SimpleNamespace(privacy=privacy, strategy=SimpleNamespace(kind=strategy)))
    assert (KeptTerm.of(given) is not None) == keeps


@pytest.mark.parametrize(
    ("deadline", "waited"),
    [(30, 30.0), (0.5, 0.5), (9_999_999, 9_999_999.0), (10**7, None), (0, None), (-1, None), (True, None), ("9", None)],
)
def test_a_courier_waits_as_long_as_master_does(deadline, waited):
    request = {"experiment": {"participation": {"deadline_s": deadline}}}
    assert courier._deadline(request) == (courier._DEADLINE_S if waited is None else waited)
    assert courier._deadline({"experiment": 3}) == courier._DEADLINE_S


def test_a_containers_age_is_that_of_its_process(monkeypatch):
    monkeypatch.delenv("INPUT_FILE", raising=False)
    assert courier._age_of_process() is None
    code = "from v6_algorithm.engines.resident.courier import _age_of_process as age; print(age())"
    start = time.monotonic()
    environment = os.environ | {"INPUT_FILE": "there"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    # The system counts in hundredths.
    assert 0 <= float(done.stdout) <= time.monotonic() - start + 0.02
    monkeypatch.setenv("INPUT_FILE", "there")
    age = courier._age_of_process()
    time.sleep(0.03)
    assert 0 < age < courier._age_of_process() < age + 60


# -- strategies that bear attacks ------------------------------------------------------------------------------------


def test_the_median_distance_has_more_than_half_of_the_weight_within_it():
    distances, ones = torch.tensor([5.0, 1.0, 3.0]), torch.ones(3)
    assert _weighted_median(distances, ones) == 3
    assert _weighted_median(distances, torch.tensor([5.0, 1.0, 1.0])) == 5
    assert _weighted_median(distances, torch.tensor([1.0, 5.0, 1.0])) == 1
    assert _weighted_median(torch.tensor([1.0, 2.0]), torch.ones(2)) == 2


def test_weights_of_updates_may_be_any_shares():
    updates = torch.zeros(2, 3)
    assert weights_for(updates, None).tolist() == [1, 1]
    assert weights_for(updates, torch.tensor([0.25, 0.0])).tolist() == [0.25, 0]
    for wrong in ([0.0, 0.0], [1.0], [1.0, -0.1]):
        with pytest.raises(ValueError, match="none negative and not all zero"):
            weights_for(updates, torch.tensor(wrong))
