"""Small parts of a site by themselves: whether it says that it lasts, and how many prepared rows stay in memory."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hospitals import table

from v6_algorithm.data.preparation import Preparation, Setup
from v6_algorithm.data.sources import TableSource
from v6_algorithm.exchange import wire
from v6_algorithm.experiment import Experiment
from v6_algorithm.learning.training.device import Device
from v6_algorithm.site import SiteContext, handle
from v6_algorithm.site import work as work_module
from v6_algorithm.site.work import Work, _bytes_of

CONTENT = {"data": {"target": "y", "features": ["a", "b"]}, "model": "logistic", "split": {"kind": "kfold", "folds": 3}}


ZERO = np.zeros((3, 2))
SETUP = Setup(["a", "b"], {}, [0, 1], preparation=Preparation(ZERO, ZERO, ZERO + 1))


def request(**body):
    setup = SETUP.to_json()
    experiment = Experiment.parse(CONTENT).for_sites()
    content = wire.message(site="hospital", round=0, attempt=1, sites=3, experiment=experiment, setup=setup, **body)
    return json.loads(json.dumps(content))


def context(**more):
    return SiteContext({"hospital": TableSource(frame=table(60, 0))}, **more)


@pytest.mark.parametrize(
    ("folder", "process", "lasts"),
    [(False, False, False), (True, False, True), (False, True, True), (True, True, True)],
)
def test_a_site_lasts_with_a_folder_or_with_a_process_that_does(tmp_path, folder, process, lasts):
    asked = request(step="preflight") | {"setup": None}
    reply = handle("prepare", asked, context(state=tmp_path if folder else None, lasting=process))
    assert reply["status"] == "ok", reply
    assert reply["machine"]["lasting"] is lasts


def test_prepared_rows_stay_in_memory_if_those_of_all_folds_are_not_larger_than_the_limit(monkeypatch):
    asked = request()
    whole = context()
    work = Work(asked, whole)
    device = Device.choose(work.experiment.training)
    loaded = work.table(SETUP)
    # Of three folds, in bytes.
    needed = 3 * work.rows(loaded, SETUP, 0, device).inputs.nbytes

    def kept(limit):
        monkeypatch.setattr(work_module, "_MEMORY_BYTES", limit)
        fresh = replace(whole, memory={})
        Work(asked, fresh).rows(loaded, SETUP, 0, device)
        return any(key[0] == "rows" for key in fresh.memory if isinstance(key, tuple))

    assert kept(needed)
    assert not kept(needed - 1)


def test_a_source_is_read_as_the_experiment_writes_tables_and_stays_the_same_object():
    """What is remembered of a table goes by the object that it is read from."""
    where = context()
    (given,) = where.sources.values()
    plain = [Work(request(), where).sources["hospital"] for _ in range(2)]
    assert plain[0] is plain[1]
    content = CONTENT | {"data": CONTENT["data"] | {"decimal": ","}}
    asked = request() | {"experiment": Experiment.parse(content).for_sites()}
    first, again = (Work(asked, where).sources["hospital"] for _ in range(2))
    assert first is again is not given
    assert first.form.decimal == ","
    assert given.form.decimal != ","
    where.sources = {"hospital": first}
    assert Work(asked, where).sources["hospital"] is first


def test_a_frame_that_is_kept_is_read_once_and_anew_when_its_file_has_changed(monkeypatch):
    content = {"data": {"target": "y", "features": ["a", "b"]}, "model": "logistic"}
    request = wire.message(site="s", round=0, attempt=1, sites=3, experiment=Experiment.parse(content).for_sites())
    frame = table(60, 0)
    reads = []

    class Counted(TableSource):
        mark = "first"
        fingerprint = property(lambda self: self.mark)

        def read(self, wanted=None, *, exact=None):
            reads.append(exact)
            return frame.loc[:, [name for name in frame.columns if wanted(name)]]

    source = Counted(frame=frame)
    context = SiteContext({"s": source}, lasting=True)
    ask = Work(request, context).read
    every = {"a", "b", "y"}.__contains__
    assert set(ask(source, every, keep=True)) == {"a", "b", "y"}
    # What is kept is taken by the next who reads, whatever few columns he wants.
    assert list(ask(source, {"b"}.__contains__)) == ["b"]
    assert len(reads) == 1
    assert set(ask(source, every)) == {"a", "b", "y"}
    assert len(reads) == 2, "it was let go"
    ask(source, every, keep=True)
    monkeypatch.setattr(Counted, "mark", "second")
    ask(source, every)
    assert len(reads) == 4
    for lasting, mark in ((False, "second"), (True, None)):
        monkeypatch.setattr(Counted, "mark", mark)
        where = SiteContext({"s": source}, lasting=lasting)
        for _ in range(2):
            Work(request, where).read(source, every, keep=True)
        assert not any(key[0] == "frame" for key in where.memory if isinstance(key, tuple))
    monkeypatch.setattr(Counted, "mark", "third")
    size = 60 * 3 * 8
    for most, kept in ((size, True), (size - 1, False)):
        monkeypatch.setattr(work_module, "_MEMORY_BYTES", most)
        where = SiteContext({"s": source}, lasting=True)
        Work(request, where).read(source, every, keep=True)
        assert any(key[0] == "frame" for key in where.memory if isinstance(key, tuple)) is kept


def test_a_table_is_as_large_as_its_columns_of_every_type():
    frame = pd.DataFrame({"a": np.zeros(6), "b": np.zeros(6, dtype=np.int16)})
    assert _bytes_of(frame) == 6 * (8 + 2)
    # An Int64 has a mask beside its numbers.
    assert _bytes_of(frame.assign(c=pd.array([1] * 6, dtype="Int64"))) == 6 * (8 + 2 + 9)
