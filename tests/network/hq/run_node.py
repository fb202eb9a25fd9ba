"""A node of vantage6 5 whose Kubernetes is at K8S_URL, and whose files are in a folder: run_node.py CONFIG FOLDER."""

import os
import sys
from pathlib import Path

import kubernetes.client
import kubernetes.config
from vantage6.cli.context.node import NodeContext
from vantage6.node import run
from vantage6.node.k8s import container_manager, run_io, session_manager

folder = Path(sys.argv[2]).resolve()
# Else below /app, where its own container has volumes.
run_io.TASK_FILES_ROOT = session_manager.TASK_FILES_ROOT = str(folder / "tasks")
container_manager.DATABASE_BASE_PATH = str(folder / "databases")


def at_our_address() -> None:
    configuration = kubernetes.client.Configuration()
    configuration.host = os.environ["K8S_URL"]
    kubernetes.client.Configuration.set_default(configuration)


kubernetes.config.load_incluster_config = at_our_address
run(NodeContext(Path(sys.argv[1]).stem, False, sys.argv[1], in_container=True))
