"""A Python that has imported torch and pandas already: what starts the algorithm in tests of nodes and couriers.

More than half of what a network of processes computes is imports of torch, about ten in a run. `WarmPython` is one
process that imports libraries, none of ours, and forks for each run. A node starts `WarmPython.command` in place of an
interpreter: that process lasts as long as its run and ends as the run ends, and when it is killed, so is the run. Runs
in containers, of `v6-algorithm network` and of nodes of vantage6 5 start cold, as at a hospital.
"""

from __future__ import annotations

import array
import atexit
import contextlib
import gc
import importlib
import os
import random
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import traceback
from pathlib import Path

LIBRARIES = ("torch", "numpy", "pandas", "pydantic", "safetensors.torch", "vantage6.algorithm.tools.wrap")
# Of the process engine: what the libraries look at when they are imported.
INHERITED = ("OMP_NUM_THREADS", "OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "OPENBLAS_NUM_THREADS", "PATH", "HOME")
READY_S = 120
COMMAND = """#!{python} -SE
import array, os, socket, struct, sys
talk = socket.socket(socket.AF_UNIX)
talk.connect({address!r})
variables = [name + "=" + value for name, value in os.environ.items()]
parts = [os.getcwd(), sys.argv[2], str(len(variables)), *variables, *sys.argv[3:]]
order = b"\\0".join(map(os.fsencode, parts))
head = struct.pack("=I", len(order))
talk.sendmsg([head], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [1, 2]))])
talk.sendall(order)
code = talk.recv(4)
os._exit(struct.unpack("=i", code)[0] if len(code) == 4 else 1)
"""


class WarmPython:
    """The process that forks; `command` is the path of an executable that is called as `python -c PROGRAM …` is."""

    def __init__(self, folder: Path, python: str = sys.executable, **variables: str) -> None:
        address = folder / "socket"
        self.command = folder / "python"
        self.command.write_text(COMMAND.format(python=python, address=str(address)))
        self.command.chmod(0o700)
        environment = {name: os.environ[name] for name in INHERITED if name in os.environ} | variables
        # It ends when its standard input does, so with the tests, however they end.
        self._process = subprocess.Popen(
            [python, "-P", __file__, address], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._process.stdout is not None
        if not self._process.stdout.readline():
            raise RuntimeError("the process that forks for algorithms did not start")

    def stop(self) -> None:
        """End it; runs that go on are not touched."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def _serve(address: str) -> str:
    """Fork for each order; returns in the fork that is to carry one out, with its program."""
    for library in LIBRARIES:
        importlib.import_module(library)
    gc.freeze()  # no search for circles writes to what is shared
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen(64)
        print("ready", flush=True)
        while True:
            if 0 in select.select([listener, 0], [], [])[0]:
                _book()
                os._exit(0)
            talk, _ = listener.accept()
            if os.fork() == 0:
                break
            talk.close()
            _book()
    return _mind(talk)


def _book() -> None:
    """Take note of runs that have ended, so that what they computed counts as this process's."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _mind(talk: socket.socket) -> str:
    """Fork once more, wait for that run, and tell how it ended; whoever asked for it and is gone ends it."""
    head, ancillary, _, _ = talk.recvmsg(4, socket.CMSG_SPACE(8))
    outputs = array.array("i", ancillary[0][2][:8])
    size = struct.unpack("=I", head)[0]
    order = b""
    while len(order) < size:
        piece = talk.recv(size - len(order))
        if not piece:
            os._exit(0)
        order += piece
    run = os.fork()
    if run == 0:
        talk.close()
        return _become(order.split(b"\0"), outputs)
    for descriptor in (1, 2, *outputs):
        os.close(descriptor)
    ended = os.pidfd_open(run)
    if ended not in select.select([ended, talk], [], [])[0]:
        os.kill(run, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(run, 0)[1])
    with contextlib.suppress(OSError):  # who asked may have been killed in this moment
        talk.sendall(struct.pack("=i", code if code >= 0 else 128 - code))
    os._exit(0)


def _become(order: list[bytes], outputs: array.array) -> str:
    """Be the process that was ordered: folder, variables, output, and no random numbers of another one's."""
    folder, program, number, *rest = order
    os.chdir(folder)
    os.environb.clear()
    os.environb.update(dict(variable.split(b"=", 1) for variable in rest[: int(number)]))
    sys.argv = ["-c", *map(os.fsdecode, rest[int(number) :])]
    for target, descriptor in zip((1, 2), outputs, strict=True):
        os.dup2(descriptor, target)
        os.close(descriptor)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)
    sys.path[:0] = ["", *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    random.seed()
    importlib.import_module("numpy").random.seed()
    return os.fsdecode(program)


def _run(program: str) -> int:
    """Run a program as `python -c` does, and return what it ends with."""
    try:
        exec(compile(program, "<string>", "exec"), {"__name__": "__main__"})  # noqa: S102
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    code = _run(_serve(sys.argv[1]))
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    # Taking the interpreter apart would write to all memory that is shared with other runs: two seconds.
    os._exit(code)
