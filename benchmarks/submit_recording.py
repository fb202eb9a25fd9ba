"""Records what a researcher sees of `v6-algorithm submit` in a terminal, on a real vantage6 network on this machine.

    python benchmarks/submit_recording.py            nodes as processes; --docker: algorithms in containers

The network is the one of tests/network; the data are the heart disease tables by hospital (see common.DATA). Prints the
terminal's last screen, with the lines that scrolled off it in front. Needs pyte, a terminal in Python.
"""

from __future__ import annotations

import fcntl
import os
import pty
import select
import shutil
import struct
import subprocess
import sys
import tempfile
import termios
import time
from pathlib import Path

import pyte
from common import DATA

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "network" / "support"))

from docker_cli import bridge_gateway  # noqa: E402
from server_python import server_python  # noqa: E402
from v6config import Site  # noqa: E402
from v6network import IMAGE, Network  # noqa: E402

COLUMNS, LINES = 110, 60
HOSPITALS = ("cleveland", "hungarian", "switzerland")


def record(command: list[str], folder: Path, environment: dict[str, str]) -> str:
    """Run a command in a terminal of its own and return what can be read there at the end."""
    screen = pyte.HistoryScreen(COLUMNS, LINES, history=1000)
    stream = pyte.ByteStream(screen)
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    child = subprocess.Popen(command, cwd=folder, env=environment, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    watched: set[str] = set()
    while child.poll() is None or select.select([ours], [], [], 0)[0]:
        if select.select([ours], [], [], 0.1)[0]:
            try:
                stream.feed(os.read(ours, 65536))
            except OSError:
                break
        watched |= {line.rstrip() for line in screen.display if "task 1" in line and "━" in line}
    above = ["".join(row[at].data for at in range(COLUMNS)) for row in screen.history.top]
    text = "\n".join(line.rstrip() for line in [*above, *screen.display]).rstrip()
    moments = "\n".join(sorted(watched, key=lambda line: line.split()[-1])[:: max(1, len(watched) // 6)])
    return f"{text}\n\n--- the last line while it ran, now and then:\n{moments}"


def main() -> None:
    in_docker = "--docker" in sys.argv
    options = {"images": None, "proxy_host": bridge_gateway()} if in_docker else {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "network").mkdir()
        sites = {hospital: Site({"default": DATA / "heart_disease" / f"{hospital}.csv"}) for hospital in HOSPITALS}
        start = time.monotonic()
        network = Network(folder / "network", server_python(), sites, **options)
        try:
            network.start()
            print(f"network up in {time.monotonic() - start:.0f} s; {'containers' if in_docker else 'processes'}")
            shutil.copy(ROOT / "mock" / "heart.yaml", folder)
            environment = {**os.environ, "V6_PASSWORD": network.password, "TERM": "xterm-256color"}
            words = ["submit", "heart.yaml", "--server", network.url, "--username", network.username]
            words += ["--collaboration", network.name, "--image", IMAGE, "--set", "rounds=3", "--out", "heart"]
            program = str(Path(sys.executable).with_name("v6-algorithm"))
            print("$ v6-algorithm " + " ".join(words))
            print(record([program, *words], folder, environment))
        finally:
            network.stop()


if __name__ == "__main__":
    main()
