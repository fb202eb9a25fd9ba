"""What is said while an extraction at vantage6 5's HQ lasts."""

from __future__ import annotations

from types import SimpleNamespace

from v6_algorithm.researcher import hq


def test_an_extraction_that_shows_nothing_new_is_remarked_on_once(monkeypatch):
    """A node of 5.0.3 that lost the answer leaves the run active for good."""
    monkeypatch.setattr(hq, "_QUIET_S", 0.0)
    monkeypatch.setattr(hq, "_POLL_S", 0.0)
    looks = iter(["pending", "active", "active", "active", "active", "completed"])
    said = []
    server = object.__new__(hq.HqServer)
    server._say = said.append
    server.ask = lambda path, params: {"data": [{"status": next(looks), "organization": {"id": 3}}]}
    collaboration = SimpleNamespace(organizations=[SimpleNamespace(id=3, name="amsterdam", online=True)])
    server._wait(collaboration, 7, "default")
    assert [line.partition(".")[0] for line in said] == [
        "extracting     waiting for amsterdam (pending)",
        "extracting     waiting for amsterdam (active)",
        "note: nothing has changed for 0 minutes",
    ]
