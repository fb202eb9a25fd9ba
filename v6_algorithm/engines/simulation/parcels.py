"""What passes between a simulated federation and the workers that hold its sites: JSON, and tensors as safetensors.

A message is a head, which is JSON, and parts, which are bytes; nothing in it is pickled. A model that many sites get is
one part, made once a call. What sites that were trained together have in common, their stacks of parameters and their
table of measured rows, goes back once for all of them. `workers` and `ray` carry messages; `site` and `coordinator` see
the objects of `local`, as in one process.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from v6_algorithm.exchange import wire
from v6_algorithm.exchange.protocol import Arrival, Missing, Replies
from v6_algorithm.learning.metrics import CheckedState
from v6_algorithm.learning.metrics.by_site import SiteState, SiteStates

if TYPE_CHECKING:
    from torch import Tensor

# A head as JSON text, then the parts that it numbers.
Parcel = list[bytes]
# What requests say again and again, so that a worker is sent it once.
_KEPT = ("experiment", "setup")
_MOST_KEPT = 256


class Requests:
    """Writes requests for workers.

    What stays the same from call to call, the experiment and what the sites agreed on, goes to each worker once; see
    `ReadRequests`, which reads what this writes.
    """

    def __init__(self) -> None:
        # Objects by identity, which are kept alive by being here, with their numbers; the newest of each key.
        self._numbers: dict[int, tuple[int, Any]] = {}
        self._newest: dict[str, tuple[int, Any]] = {}
        self._count = 0
        # The numbers that each worker has.
        self._known: dict[int, dict[str, Any]] = {}
        # The models of a call, by identity, with what keeps them alive.
        self._models: dict[int, tuple[Any, bytes]] = {}

    def begin(self) -> None:
        """Forget the models of the call before."""
        self._models = {}

    def write(self, worker: int, head: Mapping[str, Any], requests: Mapping[str, Mapping[str, Any]]) -> Parcel:
        """Return the message for one worker; `requests` are those of its sites."""
        parts: list[bytes] = []
        places: dict[int, int] = {}
        fresh: dict[str, Any] = {}
        known = self._known.setdefault(worker, {})
        slim: dict[str, Any] = {}
        for site, request in requests.items():
            mine = {key: value for key, value in request.items() if key not in _KEPT}
            mine["kept"] = {key: self._number(key, request[key]) for key in _KEPT if key in request}
            for key, number in mine["kept"].items():
                if number not in known:
                    known[number] = None
                    fresh[number] = request[key]
            if "folds" in mine:
                mine["folds"] = [self._item(item, parts, places) for item in mine["folds"]]
            slim[site] = mine
        _forget(known)
        return [_json({**head, "fresh": fresh, "requests": slim}), *parts]

    def _number(self, key: str, content: Any) -> str:
        known = self._numbers.get(id(content))
        if known is None:
            number, before = self._newest.get(key, (0, None))
            if before != content:
                self._count += 1
                number = self._count
            self._newest[key] = known = self._numbers[id(content)] = number, content
            _forget(self._numbers)
        return str(known[0])

    def _item(self, item: Mapping[str, Any], parts: list[bytes], places: dict[int, int]) -> dict[str, Any]:
        given = item.get("parameters")
        if not isinstance(given, wire.Packed):
            return dict(item)
        if id(given) not in places:
            places[id(given)] = len(parts)
            parts.append(self._model(given))
        return {**item, "parameters": {"part": places[id(given)]}}

    def _model(self, given: wire.Packed) -> bytes:
        known = self._models.get(id(given))
        if known is None:
            if given.tensors is None:
                # Of a checkpoint.
                given.tensors = wire.unpack(given)
            known = self._models[id(given)] = given, _tensors_to_bytes(given.tensors)
        return known[1]


class ReadRequests:
    """Reads in a worker what `Requests` writes for it."""

    def __init__(self) -> None:
        self._known: dict[str, Any] = {}

    def read(self, parcel: Sequence[Any]) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
        """Return the head and the requests by site; what was one object is one."""
        head = json.loads(bytes(parcel[0]))
        self._known |= head.pop("fresh")
        models: dict[int, wire.Packed] = {}
        requests = head.pop("requests")
        for request in requests.values():
            request |= {key: self._known[number] for key, number in request.pop("kept").items()}
            for item in request.get("folds", ()):
                given = item.get("parameters")
                if isinstance(given, dict):
                    number = given["part"]
                    if number not in models:
                        models[number] = wire.pack(_tensors_of(parcel[1 + number]), keep=True, consume=True)
                    item["parameters"] = models[number]
        _forget(self._known)
        return head, requests


def _forget(known: dict[Any, Any]) -> None:
    """Keep what came last; who writes and who reads forget the same."""
    for key in list(known)[:-_MOST_KEPT]:
        del known[key]


def write_answers(head: Mapping[str, Any], arrivals: Sequence[Arrival], replies: Replies) -> Parcel:
    """Return the message of some answers, those that share tensors all in one.

    Parameters
    ----------
    head
        What goes with them.
    arrivals
        The answers, as a `local` federation gives them.
    replies
        Whose books have the bytes that passed as text.
    """
    writing = _Writing([arrival.reply for arrival in arrivals if arrival.reply is not None])
    written = []
    for arrival in arrivals:
        entry: dict[str, Any] = {"site": arrival.site}
        if arrival.missing is not None:
            entry["missing"] = [arrival.missing.kind, arrival.missing.reason]
        if arrival.text is not None:
            entry["text"] = writing.part(str(arrival.text).encode())
        if arrival.reply is not None:
            entry["reply"] = writing.reply(arrival.reply)
        for name in ("bytes_sent", "bytes_received"):
            if arrival.site in (book := getattr(replies, name)):
                entry[name] = book[arrival.site]
        written.append(entry)
    content, parts = writing.finished()
    return [_json({**head, "arrivals": written, **content}), *parts]


def read_answers(parcel: Sequence[Any], replies: Replies | None) -> tuple[dict[str, Any], list[Arrival]]:
    """Return the head and the answers of `write_answers`, and book the bytes; without `replies` only the head."""
    head = json.loads(bytes(parcel[0]))
    entries = head.pop("arrivals", [])
    if replies is None:
        return head, []
    reading = _Reading(head, parcel[1:])
    arrivals = []
    for entry in entries:
        site = entry["site"]
        missing = Missing(*entry["missing"]) if "missing" in entry else None
        text = bytes(parcel[1 + entry["text"]]).decode() if "text" in entry else None
        reply = reading.reply(entry["reply"]) if "reply" in entry else None
        for name in ("bytes_sent", "bytes_received"):
            if name in entry:
                getattr(replies, name)[site] = entry[name]
        arrivals.append(Arrival(site, text, missing, reply=reply))
    return head, arrivals


class _Writing:
    """Writes replies; tensors and tables that several share are written once."""

    def __init__(self, replies: Sequence[Mapping[str, Any]]) -> None:
        self._parts: list[bytes] = []
        self._tensors: dict[str, Tensor] = {}
        # Stacks by identity, with the layers that are used: sites that left early leave a stack that others use little.
        self._layers: dict[int, list[int]] = {}
        for reply in replies:
            for item in reply.get("folds", ()):
                given = item.get("parameters")
                if isinstance(given, wire.Held) and isinstance(given.tensors, wire.Stacked):
                    self._layers.setdefault(id(given.tensors.stacks), []).append(given.tensors.layer)
        self._stacks: dict[int, int] = {}
        self._places: dict[int, dict[int, int]] = {}
        self._written_stacks: list[dict[str, int]] = []
        self._tables: dict[int, int] = {}
        self._written_tables: list[Any] = []

    def part(self, content: bytes) -> int:
        """Add a part; returns its number."""
        self._parts.append(content)
        return len(self._parts) - 1

    def reply(self, reply: Mapping[str, Any]) -> dict[str, Any]:
        """Return a reply as JSON."""
        if "folds" not in reply:
            return dict(reply)
        return {**reply, "folds": [self._item(item) for item in reply["folds"]]}

    def finished(self) -> tuple[dict[str, Any], list[bytes]]:
        """Return what the head says of stacks, tables and tensors, and the parts."""
        content: dict[str, Any] = {"stacks": self._written_stacks, "tables": self._written_tables}
        if self._tensors:
            content["tensors"] = self.part(_tensors_to_bytes(self._tensors))
        return content, self._parts

    def _item(self, item: Mapping[str, Any]) -> dict[str, Any]:
        written = wire.with_texts(item)
        given = written.get("parameters")
        if isinstance(given, wire.Held):
            written["parameters"] = self._held(given)
        if "metrics" in written:
            written["metrics"] = {
                part: {name: self._state(state) for name, state in states.items()}
                for part, states in written["metrics"].items()
            }
        return written

    def _held(self, held: wire.Held) -> dict[str, Any]:
        tensors = held.tensors
        if not isinstance(tensors, wire.Stacked):
            return {"names": list(tensors), "first": self._add(tensors.values())}
        layers = self._layers[id(tensors.stacks)]
        number = self._stacks.get(id(tensors.stacks))
        if number is None:
            number = self._stacks[id(tensors.stacks)] = len(self._written_stacks)
            whole = all(len(layers) == len(stack) for stack in tensors.stacks.values())
            used = sorted(layers)
            # Layers that are left out count no more.
            self._places[id(tensors.stacks)] = {layer: place for place, layer in enumerate(used)}
            stacks = tensors.stacks.values()
            first = self._add(stacks if whole else [stack[used] for stack in stacks])
            self._written_stacks.append({name: first + place for place, name in enumerate(tensors.stacks)})
        return {"names": list(tensors), "stack": number, "layer": self._places[id(tensors.stacks)][tensors.layer]}

    def _add(self, tensors: Any) -> int:
        first = len(self._tensors)
        for tensor in tensors:
            self._tensors[str(len(self._tensors))] = tensor
        return first

    def _state(self, state: Any) -> Any:
        if not isinstance(state, SiteState) or state.written:
            return state
        table, number = state.table, state.number
        if id(table) not in self._tables:
            self._tables[id(table)] = len(self._written_tables)
            content, arrays = table.to_arrays()
            import torch

            first = self._add(torch.from_numpy(array) for array in arrays.values())
            places = {name: first + place for place, name in enumerate(arrays)}
            self._written_tables.append({"content": content, "arrays": places})
        return {"table": self._tables[id(table)], "number": number}


class _Reading:
    """Reads replies that `_Writing` wrote."""

    def __init__(self, head: Mapping[str, Any], parts: Sequence[Any]) -> None:
        self._tensors = _tensors_of(parts[head["tensors"]]) if "tensors" in head else {}
        self._stacks = [
            {name: self._tensors[str(number)] for name, number in stack.items()} for stack in head.get("stacks", ())
        ]
        self._states = [
            SiteStates.from_arrays(
                table["content"], {name: self._tensors[str(place)].numpy() for name, place in table["arrays"].items()}
            ).states()
            for table in head.get("tables", ())
        ]

    def reply(self, written: dict[str, Any]) -> dict[str, Any]:
        """Return a reply as it was."""
        for item in written.get("folds", ()):
            given = item.get("parameters")
            if isinstance(given, dict):
                item["parameters"] = self._held(given)
            for states in item.get("metrics", {}).values():
                for name, state in states.items():
                    # Each comes from a collector, in a process of this run.
                    in_table = set(state) == {"table", "number"}
                    states[name] = (
                        self._states[state["table"]][state["number"]] if in_table else CheckedState(state)
                    )  # fmt: skip
        return written

    def _held(self, given: Mapping[str, Any]) -> wire.Held:
        if "stack" in given:
            return wire.Held(wire.Stacked(self._stacks[given["stack"]], given["layer"], given["names"]))
        first = given["first"]
        return wire.Held({name: self._tensors[str(first + place)] for place, name in enumerate(given["names"])})


def _json(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, separators=(",", ":")).encode()


def _tensors_to_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    """Return tensors as a safetensors file, in which no two share memory."""
    import safetensors.torch

    dense: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous()
        place = tensor.untyped_storage().data_ptr()
        dense[name] = tensor.clone() if place in seen else tensor
        seen.add(place)
    return safetensors.torch.save(dense)


def _tensors_of(content: Any) -> dict[str, Tensor]:
    import safetensors.torch

    return dict(safetensors.torch.load(bytes(content)))
