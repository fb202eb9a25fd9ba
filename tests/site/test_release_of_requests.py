"""What a request carried is let go when it is answered: a large model must not wait until Python looks for circles."""

import gc
import weakref

import pandas as pd
import pytest

from v6_algorithm.data.sources import TableSource
from v6_algorithm.exchange import wire
from v6_algorithm.site import SiteContext, handle, work


@pytest.fixture
def no_search():
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def test_a_request_is_let_go_without_a_search_for_circles(no_search, make_experiment, monkeypatch):
    made, begin = [], work.Work.__init__

    def watched(self, *given):
        begin(self, *given)
        made.append(weakref.ref(self))

    monkeypatch.setattr(work.Work, "__init__", watched)
    frame = pd.DataFrame({"a": [float(number) for number in range(40)], "y": [0, 1] * 20})
    request = wire.message(
        site="one", round=0, attempt=0, sites=3, experiment=make_experiment().for_sites(), step="schema"
    )
    reply = handle("prepare", request, SiteContext({"one": TableSource(frame=frame)}), raise_bugs=True)
    assert reply["status"] == "ok"
    assert made
    assert [seen() for seen in made] == [None] * len(made)
