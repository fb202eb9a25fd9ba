"""The real vantage6 4.15 node outside of a container. Run by the server's Python: `run_node.py CONFIG [IMAGES]`.

Without IMAGES, algorithms run in Docker containers. With it, a JSON file (see process_engine.py), they run as
processes: all else, from the websocket and the policies to the proxy and the encoded variables, is vantage6's own code.

vnode-local of 4.15 cannot start outside a container: the node reads `running_in_docker` off a context that lacks it,
and takes /.dockerenv, which a virtual machine may have too, for being in one. Both are set before vantage6 looks.
"""

import sys
import time
from pathlib import Path
from types import SimpleNamespace

from vantage6.common.docker import addons

addons.running_in_docker = lambda: False

import docker  # noqa: E402
from process_engine import ProcessEngine  # noqa: E402
from vantage6 import node  # noqa: E402
from vantage6.node.context import NodeContext  # noqa: E402
from vantage6.node.docker import docker_manager  # noqa: E402

FINISHED_POLL_S = 0.1  # vantage6 looks for finished containers once a second

NodeContext.running_in_docker = False
config, *images = sys.argv[1:]
if images:
    engine = ProcessEngine.from_file(Path(images[0]))
    docker.from_env = docker.DockerClient.from_env = lambda *_, **__: engine
    docker_manager.time = SimpleNamespace(sleep=lambda _: time.sleep(FINISHED_POLL_S))
node.run(NodeContext(Path(config).stem, False, config))
