"""One site's masked numbers, checked: what `secure_aggregation` adds up, and who is left out of the sum."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from v6_algorithm.errors import WireError
from v6_algorithm.exchange.protocol import Replies
from v6_algorithm.exchange.secure_aggregation import layout, protocol
from v6_algorithm.exchange.secure_aggregation.keys import digest
from v6_algorithm.exchange.secure_aggregation.ring import Shape, Vector


@dataclass
class MaskedAnswer:
    """One site's answer: its masked numbers, their form, and what it tells in the clear."""

    masked: protocol.Masked
    skeleton: Any
    clear: dict[str, Any]

    @classmethod
    def read(cls, reply: Mapping[str, Any], call: protocol.Call) -> MaskedAnswer:
        """Check a reply to a call; raises WireError, or what a malformed one leads to."""
        given, skeleton = reply["masked"], reply["skeleton"]
        if given["context"] != call.context:
            raise WireError("it masked its numbers for another call, or another list of participants")
        if set(skeleton) != {"sites", "clipped", "body"}:
            raise WireError("its numbers have another form than was asked for")
        if type(given["updates"]) is not int or given["words"] not in (1, 2):
            raise WireError("its numbers have another form than was asked for")
        shape = Shape(given["updates"], given["words"], layout.count_numbers(skeleton))
        letters, seals = dict(given["letters"]), list(given["seals"])
        if set(letters) != set(call.points) or len(seals) != len(call.points):
            raise WireError("it sealed its shares for other sites than take part")
        masked = protocol.Masked(Vector.from_text(given["numbers"], shape), letters, [str(seal) for seal in seals])
        if type(reply.get("epsilon", 0)) not in (int, float):
            raise WireError("its epsilon must be a number")
        known = ("device", "starts", "samples", "spec", "hidden", "start", "epsilon")
        return cls(masked, skeleton, {key: reply[key] for key in known if key in reply})

    @property
    def form(self) -> str:
        """A hash of what its numbers are of: only answers of one form can be added up."""
        shape = self.masked.vector.shape
        return digest([self.skeleton, shape.updates, shape.words, self.clear.get("spec")])


def drop_other_forms(arrived: dict[str, MaskedAnswer], replies: Replies) -> None:
    """Leave out sites whose numbers have another form than those of most."""
    forms = {site: answer.form for site, answer in arrived.items()}
    if len(set(forms.values())) > 1:
        usual = Counter(forms.values()).most_common(1)[0][0]
        for site in [site for site, form in forms.items() if form != usual]:
            del arrived[site]
            replies.reject(site, "its numbers are of another kind or shape than those of the other sites")
