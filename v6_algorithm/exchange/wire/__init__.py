"""The payload format: tensors and messages <-> JSON, and every check on what came in.

Tensors travel as safetensors bytes in base64, exact to the bit, inside a JSON message that carries the schema
version, the round and the attempt. Nothing is unpickled, and nothing is computed with before keys, shapes, dtypes,
finiteness and size were checked. Sites and the coordinator write messages and read each other's. `spec` describes a
model's tensors, `packed` encodes them, `messages` puts them into JSON.
"""

from __future__ import annotations

from v6_algorithm.exchange.wire.messages import (
    LARGEST_NUMBER,
    PLAIN,
    SCHEMA,
    as_read,
    message,
    read_reply,
    text_length,
    to_text,
    with_texts,
)
from v6_algorithm.exchange.wire.packed import (
    MAX_BYTES,
    Held,
    Model,
    Packed,
    Stacked,
    digest,
    digest_of,
    give_back,
    hold,
    pack,
    pack_arrays,
    pack_file,
    read_metadata,
    unpack,
)
from v6_algorithm.exchange.wire.spec import (
    StateSpec,
    TensorSpec,
    all_finite,
    check,
    check_stacks,
    fit,
    spec_bytes,
    spec_from_json,
)

__all__ = [
    "LARGEST_NUMBER",
    "MAX_BYTES",
    "PLAIN",
    "SCHEMA",
    "Held",
    "Model",
    "Packed",
    "Stacked",
    "StateSpec",
    "TensorSpec",
    "all_finite",
    "as_read",
    "check",
    "check_stacks",
    "digest",
    "digest_of",
    "fit",
    "give_back",
    "hold",
    "message",
    "pack",
    "pack_arrays",
    "pack_file",
    "read_metadata",
    "read_reply",
    "spec_bytes",
    "spec_from_json",
    "text_length",
    "to_text",
    "unpack",
    "with_texts",
]
