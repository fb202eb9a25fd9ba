"""Models by name: a site that has been sent a model is sent its hash from then on, and finds it in the job's folder.

`master`'s engine names models in requests with `Naming`; a site's entry puts the texts back with `resolve` before
anything else looks at a request. Both keep the newest ones by one rule. A site that has lost one says so, and is sent
all of it.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from v6_algorithm.data.cache import write_whole
from v6_algorithm.errors import SiteError
from v6_algorithm.exchange.wire import Packed

# Below that a name saves nothing that anybody notices.
LEAST_CHARACTERS = 2**15
# What a site keeps: so many, and together so many characters, but always the newest.
MOST_MODELS, MOST_CHARACTERS = 32, 2**29
NAME, TEXT, TASK = "$model", "$text", "$task"
# The kind of the error of a site that has not what a request names.
UNKNOWN = "model"
_FOLDER = "models"


def kept(newest_first: list[tuple[str, int]]) -> list[str]:
    """Return the names that are kept of models and their sizes, by the rule of both sides."""
    names: list[str] = []
    total = 0
    for name, size in newest_first[:MOST_MODELS]:
        total += size
        if names and total > MOST_CHARACTERS:
            break
        names.append(name)
    return names


class Naming:
    """What `master` knows of the models that its sites have."""

    def __init__(self) -> None:
        # Site to its models' sizes by name, the newest last.
        self._at: dict[str, dict[str, int]] = {}
        self._forgetful: set[str] = set()
        # Characters that the site last asked fetches by itself.
        self.to_fetch = 0

    def named(
        self, site: str, request: Mapping[str, Any], published: Mapping[str, int] | None = None
    ) -> dict[str, Any]:
        """Return the request with each large packed text named, and left out where the site has it or can fetch it.

        `published` are subtasks whose result is the model of that hash.
        """
        self.to_fetch = 0
        if site in self._forgetful:
            return dict(request)
        held = self._at.get(site, {})

        def name(text: str) -> dict[str, Any]:
            digest = name_of(text)
            if digest in held:
                return {NAME: digest}
            if published and digest in published:
                self.to_fetch += len(text)
                return {NAME: digest, TASK: published[digest]}
            return {NAME: digest, TEXT: text}

        return {key: _walked(value, name) for key, value in request.items()}

    def answered(self, site: str, request: Mapping[str, Any]) -> None:
        """Book that a site has what this request held, which it has answered."""
        if site in self._forgetful:
            return
        held = self._at.setdefault(site, {})

        def book(text: str) -> str:
            digest = name_of(text)
            held.pop(digest, None)
            held[digest] = len(text)
            return text

        for value in request.values():
            _walked(value, book)
        keep = set(kept(list(held.items())[::-1]))
        self._at[site] = {name: size for name, size in held.items() if name in keep}

    def missing(self, requests: Mapping[str, Mapping[str, Any]], least: int) -> dict[str, str]:
        """Return, by hash, the texts of so many characters that more than one of the sites asked does not have."""
        texts: dict[str, str] = {}
        count: dict[str, int] = {}

        for site, request in requests.items():
            held = self._at.get(site, {})

            def note(text: str, site: str = site, held: Mapping[str, int] = held) -> str:
                if len(text) >= least and site not in self._forgetful and (digest := name_of(text)) not in held:
                    texts[digest] = text
                    count[digest] = count.get(digest, 0) + 1
                return text

            for value in request.values():
                _walked(value, note)
        return {digest: text for digest, text in texts.items() if count[digest] > 1}

    def lost(self, site: str) -> None:
        """Book that a site has lost what it was sent: it is sent everything from now on."""
        self._forgetful.add(site)


def named_alike(request: Mapping[str, Any]) -> dict[str, Any]:
    """Return a request with each large packed text named by its hash, whatever a site has: it says what is asked."""
    return {key: _walked(value, lambda text: {NAME: name_of(text)}) for key, value in request.items()}


def name_of(text: str) -> str:
    """Return the hash of a model's text; one that goes to several sites, and round after round, is hashed once."""
    if not isinstance(text, Packed):
        return _hash(text)
    if text.digest is None:
        text.digest = _hash(text)
    return text.digest


def _walked(value: Any, change: Callable[[str], Any]) -> Any:
    """Return a tree with each large packed text changed."""
    if isinstance(value, Packed):
        return change(value) if len(value) >= LEAST_CHARACTERS else value
    if isinstance(value, Mapping):
        return {key: _walked(item, change) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_walked(item, change) for item in value]
    return value


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


# -- at the site -------------------------------------------------------------------------------------------------------


def resolve(
    request: Mapping[str, Any], folder: Path | None, fetch: Callable[[int], str | None] | None = None
) -> dict[str, Any]:
    """Return a request with the texts of the models that it names, and keep those that came with it.

    Parameters
    ----------
    request
        As it came over the network.
    folder
        Of the job's state at this site; None: nothing is kept.
    fetch
        Returns the model that a subtask has published.

    Raises
    ------
    SiteError
        Of kind ``model``, when the site does not have one that is named.
    """
    store = None if folder is None else folder / _FOLDER
    touched = False

    def keep(text: str, digest: str = "") -> str:
        if store is not None:
            digest = digest or _hash(text)
            # A disk that is full costs the next request its short form, and nothing else.
            write_whole(store, digest, lambda path: _write(path, text))
            _mark_newest(store, digest)
        return text

    def text_of(name: Any, text: Any, task: Any) -> str:
        nonlocal touched
        touched = True
        if isinstance(text, str):
            return keep(text)
        if not isinstance(name, str) or not re.fullmatch("[0-9a-f]{64}", name):
            raise _unknown()
        if store is not None:
            with suppress(OSError, ValueError):
                text = (store / name).read_text(encoding="ascii")
                if _hash(text) == name:
                    _mark_newest(store, name)
                    return str(text)
        if fetch is not None and type(task) is int:
            text = fetch(task)
            if text is not None and _hash(text) == name:
                return keep(text, name)
        raise _unknown()

    def whole(value: Any) -> Any:
        if isinstance(value, dict):
            if NAME in value and set(value) <= {NAME, TEXT, TASK}:
                return text_of(value[NAME], value.get(TEXT), value.get(TASK))
            return {key: whole(item) for key, item in value.items()}
        return [whole(item) for item in value] if isinstance(value, list) else value

    content = {key: whole(value) for key, value in request.items()}
    if touched and store is not None:
        _tidy(store)
    return content


def forget(folder: Path) -> None:
    """Take all models of a job away, when its run is over."""
    with suppress(OSError):
        for path in (folder / _FOLDER).iterdir():
            path.unlink(missing_ok=True)


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="ascii")


def _mark_newest(store: Path, name: str) -> None:
    """Date a file after all others: the clock of a file system is too coarse to tell two of one request apart."""
    with suppress(OSError):
        after = max(path.stat().st_mtime_ns for path in store.iterdir()) + 1
        moment = max(after, time.time_ns())
        os.utime(store / name, ns=(moment, moment))


def _tidy(store: Path) -> None:
    with suppress(OSError):
        # Not what another run of the job is writing now.
        about = {path.name: path.stat() for path in store.iterdir() if not path.name.startswith(".")}
        newest = sorted(about, key=lambda name: about[name].st_mtime_ns, reverse=True)
        keep = kept([(name, about[name].st_size) for name in newest])
        for name in set(newest) - set(keep):
            (store / name).unlink(missing_ok=True)


def _unknown() -> SiteError:
    return SiteError("this site does not have a model that the request names", UNKNOWN)
