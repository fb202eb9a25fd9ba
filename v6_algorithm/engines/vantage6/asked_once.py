"""Answers of the server that hold for a minute: vantage6's client asks for them anew before each subtask."""

from __future__ import annotations

import re
import time
from contextlib import suppress
from typing import Any

# Seconds that an answer is kept: a key or a storage that changes is known so soon.
KEPT_S = 60.0
_STORAGE, _STORES_BLOBS, _KEY = "blobstream/status", "blob_store_enabled", "public_key"
_OF_ORGANIZATION = re.compile(r"organization/\d+")


def keep_answers(client: Any) -> None:
    """Have an `AlgorithmClient` ask once a minute for organisations' keys, and whether inputs are stored as blobs.

    Its `task.create` asks for both with every site and round, and a node's proxy answers one request at a time.
    What is no such answer, an error for one, is not kept.
    """
    kept: dict[str, tuple[float, Any]] = {}
    request, stores_blobs = client.request, getattr(client, "check_if_blob_store_enabled", None)

    def once(endpoint: str, key: str) -> Any:
        now = time.monotonic()
        if endpoint in kept and now - kept[endpoint][0] < KEPT_S:
            return kept[endpoint][1]
        answer = request(endpoint)
        if isinstance(answer, dict) and key in answer:
            kept[endpoint] = now, answer
        return answer

    def request_kept(endpoint: str, *args: Any, **kwargs: Any) -> Any:
        if args or kwargs or not _OF_ORGANIZATION.fullmatch(endpoint):
            return request(endpoint, *args, **kwargs)
        return once(endpoint, _KEY)

    def stores_blobs_kept() -> bool:
        # Where the server does not say, the client has a way of its own.
        with suppress(Exception):
            answer = once(_STORAGE, _STORES_BLOBS)
            if isinstance(answer, dict) and _STORES_BLOBS in answer:
                return bool(answer[_STORES_BLOBS])
        return bool(stores_blobs())  # type: ignore[misc]

    client.request = request_kept
    if stores_blobs is not None:
        client.check_if_blob_store_enabled = stores_blobs_kept
