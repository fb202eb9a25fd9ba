"""What courier and trainer say to each other, and where they meet: JSON over a Unix socket in the job's volume.

Both sides of a site use it. It imports the standard library's smallest parts alone, since the courier's start is what
every round pays for.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import struct
from collections.abc import Iterator, Mapping
from typing import Any

PROTOCOL = 1
SWITCH = "V6_ALGORITHM_RESIDENT"
# A model of 2 GiB, as `wire.MAX_BYTES` has it, in base64, and the rest of a message.
LARGEST_MESSAGE = 2**31 * 4 // 3 + 2**26
_LENGTH_BYTES = 8
_PIECE = 2**20
_FOLDER, _SOCKET, _LOCK = "v6_algorithm-resident", "socket", "lock"
# Variables that differ between two containers of one job at one node, and say nothing of data, rules or code.
# The proxy's address is not among them: a trainer that cannot reach the node's new one cannot ask who sent a request.
_OF_ONE_RUN = {"INPUT_FILE", "OUTPUT_FILE", "TOKEN_FILE", "HOSTNAME", "PWD", "OLDPWD"}
# What a socket's address may be long, with its closing zero: 108 on Linux.
_LONGEST_ADDRESS = 100


class ProtocolError(Exception):
    """The other side said something that is no message, too long, or nothing."""


def switched_off(environment: Mapping[str, str]) -> bool:
    """Say whether the node's owner wants no resident trainer; a word that is neither true nor false is no yes."""
    return environment.get(SWITCH, "true").strip().lower() not in ("true", "on", "yes", "1")


def meeting_place(environment: Mapping[str, str]) -> str | None:
    """Return the folder of the socket, in the volume that a vantage6 node gives each job; None where there is none."""
    volume = environment.get("TEMPORARY_FOLDER")
    return os.path.join(volume, _FOLDER) if volume and hasattr(socket, "AF_UNIX") else None


def surroundings(environment: Mapping[str, str]) -> str:
    """Return a hash of the code, the node's settings and the databases that a process would work with.

    A trainer that outlived a change of any of these must not answer for a courier that came after it.
    """
    digest = hashlib.sha256()
    for name in sorted(set(environment) - _OF_ONE_RUN):
        digest.update(f"{name}={environment[name]}\0".encode("utf-8", "surrogateescape"))
    package = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    for folder, below, files in os.walk(package):
        below[:] = sorted(name for name in below if name != "__pycache__")
        for name in sorted(files):
            if name.endswith(".py") or name == "VERSION":
                about = os.stat(os.path.join(folder, name))
                line = f"{folder}/{name} {about.st_size} {about.st_mtime_ns}\0"
                digest.update(line.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def lock(place: str) -> int | None:
    """Take the place of the one trainer of this job; returns what to close, or None where another one has it."""
    import fcntl

    os.makedirs(place, mode=0o700, exist_ok=True)
    held = os.open(os.path.join(place, _LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        # Released when its process ends, however it ends; across containers, since they share the node's kernel.
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(held)
        return None
    return held


def listen(place: str) -> socket.socket:
    """Listen at the place, whose lock is held: what an earlier trainer has left there is dead. Mode 0600."""
    address, folder = _address(place)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        if os.path.lexists(address):
            os.unlink(address)
        listener.bind(address)
        os.chmod(address, 0o600)
        listener.listen(16)
    except OSError:
        listener.close()
        raise
    finally:
        os.umask(before)
        if folder is not None:
            os.close(folder)
    return listener


def leave(place: str) -> None:
    """Take the socket away."""
    address, folder = _address(place)
    try:
        os.unlink(address)
    except FileNotFoundError:
        pass
    finally:
        if folder is not None:
            os.close(folder)


def connect(place: str, timeout_s: float) -> socket.socket:
    """Connect to the trainer; raises OSError where there is none."""
    address, folder = _address(place)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(timeout_s)
        connection.connect(address)
    except OSError:
        connection.close()
        raise
    finally:
        if folder is not None:
            os.close(folder)
    return connection


def _address(place: str) -> tuple[str, int | None]:
    """Return the socket's address, and what to close afterwards: a long path is gone through its open folder."""
    address = os.path.join(place, _SOCKET)
    if len(os.fsencode(address)) <= _LONGEST_ADDRESS:
        return address, None
    folder = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    return f"/proc/self/fd/{folder}/{_SOCKET}", folder


def same_user(connection: socket.socket) -> bool:
    """Say whether the process at the other end is of this user; true where the system does not tell."""
    if not hasattr(socket, "SO_PEERCRED"):
        return True
    credentials = struct.Struct("3i")  # process, user, group
    user = credentials.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, credentials.size))[1]
    return bool(user == os.geteuid())


def send(connection: socket.socket, content: Mapping[str, Any]) -> None:
    """Send one message: eight bytes with its length, then JSON.

    Raises
    ------
    ProtocolError
        When it is longer than a message may be.
    OSError
        When the other side is gone.
    """
    send_text(connection, json.dumps(content))


def send_text(connection: socket.socket, content: str) -> None:
    """Send one message that is JSON text already; see `send`."""
    text = content.encode()
    if len(text) > LARGEST_MESSAGE:
        raise ProtocolError(f"a message of {len(text)} bytes is over the cap of {LARGEST_MESSAGE}")
    connection.sendall(len(text).to_bytes(_LENGTH_BYTES, "big"))
    connection.sendall(text)


def receive(connection: socket.socket, largest: int = LARGEST_MESSAGE) -> dict[str, Any]:
    """Receive one message.

    Raises
    ------
    ProtocolError
        When the other side closed before its end, or what came is too long or no JSON object.
    OSError
        When the other side is gone, or silent for longer than the connection waits.
    """
    length = int.from_bytes(_exactly(connection, _LENGTH_BYTES), "big")
    if length > largest:
        raise ProtocolError(f"a message of {length} bytes is over the cap of {largest}")
    try:
        content = json.loads(_exactly(connection, length))
    except (ValueError, RecursionError):
        raise ProtocolError("what came is not JSON") from None
    if not isinstance(content, dict):
        raise ProtocolError("what came is no JSON object")
    return content


def receive_bytes(connection: socket.socket, length: int) -> Iterator[bytes]:
    """Receive so many bytes that follow a message, in pieces; raises as `receive` does."""
    if type(length) is not int or not 0 <= length <= LARGEST_MESSAGE:
        raise ProtocolError(f"a length that is no whole number from 0 to {LARGEST_MESSAGE}")
    while length > 0:
        piece = connection.recv(min(_PIECE, length))
        if not piece:
            raise ProtocolError("the other side has closed before its message was whole")
        length -= len(piece)
        yield piece


def _exactly(connection: socket.socket, length: int) -> bytearray:
    # Grown as it comes: a length that is only claimed takes no memory.
    content = bytearray()
    while len(content) < length:
        piece = connection.recv(min(_PIECE, length - len(content)))
        if not piece:
            raise ProtocolError("the other side has closed before its message was whole")
        content += piece
    return content
