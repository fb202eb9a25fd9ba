"""A log-in that ended in mid-run is renewed where that takes no code, and told where it does."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from v6_algorithm.errors import ServerError
from v6_algorithm.researcher.server import Server


class Restarted:
    """vantage6's client at a server that was restarted without its key: tokens of before are worth nothing."""

    def __init__(self):
        self.token, self.good, self.log_ins = None, 1, []
        self.whoami = SimpleNamespace(organization_name="hub")
        self.log = SimpleNamespace(heard=[])

    def authenticate(self, username, password, code):
        self.log_ins.append((username, password, code))
        self.token = self.good

    def request(self, endpoint, **options):
        if self.token != self.good:
            raise Exception("Authentication failed")
        return {"endpoint": endpoint}


@pytest.fixture
def session():
    server = Server("http://127.0.0.1:1")
    server._client = Restarted()
    return server


def test_a_log_in_that_ended_is_renewed(session):
    session.log_in("ada", "secret")
    session._client.good = 2
    assert session.ask("run") == {"endpoint": "run"}
    assert session._client.log_ins == [("ada", "secret", None)] * 2


def test_one_that_took_a_code_is_told(session):
    session.log_in("ada", "secret", "123456")
    session._client.good = 2
    with pytest.raises(ServerError, match="the session has ended; log in again"):
        session.ask("run")


def test_one_that_is_refused_anew_is_told_and_not_tried_for_ever(session):
    session.log_in("ada", "secret")
    client = session._client
    client.good = 2
    client.authenticate = lambda *words: client.log_ins.append(words)
    with pytest.raises(ServerError, match="the session has ended"):
        session.ask("run")
    assert len(client.log_ins) == 2
