"""A federation that is watched: what is sent and answered is recorded, and replies can be lost or changed."""

import copy

from v6_algorithm.exchange import wire
from v6_algorithm.exchange.protocol import Arrival, Belated, Missing, Replies


class Spy:
    """A federation that records requests and replies, can lose or change replies on the way.

    Sites in `back` answer what they are late for before the next round; others only when they are asked again.
    """

    def __init__(self, federation, tamper=None, back=()):
        self.federation = federation
        self.tamper = tamper or (lambda method, site, number, reply: reply)
        self.back = back
        self._late = {}
        self.requests = []
        self.replies = []

    def sites(self):
        return self.federation.sites()

    def call(self, method, requests, *, deadline_s):
        self.requests.append((method, copy.deepcopy(requests)))
        inner = self.federation.call(method, requests, deadline_s=deadline_s)

        def arrivals():
            for site, reply in inner:
                given = copy.deepcopy(reply)
                changed = self.tamper(method, site, requests[site]["round"], given)
                self.replies.append((method, site, reply))
                self._late.pop(site, None)
                if changed == "late":
                    self._late[site] = Belated(site, method, requests[site], wire.to_text(given))
                if changed is None or isinstance(changed, str):
                    yield Arrival(site, None, Missing(changed or "crashed", "lost on the way"))
                else:
                    yield Arrival(site, wire.to_text(changed))
            for site, missing in inner.missing.items():
                yield Arrival(site, None, missing)

        return Replies(requests, arrivals(), {})

    def overdue(self, site):
        return site in self._late and site not in self.back

    def belated(self):
        return [self._late.pop(site) for site in list(self._late) if site in self.back]

    def of(self, method):
        return [requests for name, requests in self.requests if name == method]


def lose(lost_site, lost_rounds, kind="crashed"):
    def tamper(method, site, number, reply):
        return kind if method == "RPC_train" and site == lost_site and number in lost_rounds else reply

    return tamper
