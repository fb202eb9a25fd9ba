"""A vantage6 4.15 server on loopback. Run by the server's Python: `serve.py CONFIG ENTITIES`; ends when it is ended.

The entities go in first, the way `vserver-local import` puts them in, unless the database has some: so a server that is
started again goes on with what it knew.
"""

import sys
from pathlib import Path

import yaml
from vantage6.cli.context.server import ServerContext
from vantage6.server import run_dev_server, run_server
from vantage6.server.controller import fixture
from vantage6.server.model import Organization
from vantage6.server.model.base import Database

config, entities = sys.argv[1:]
settings = yaml.safe_load(Path(config).read_text())
context = ServerContext.from_external_config_file(config, False)
Database().connect(uri=context.get_database_uri(), allow_drop_all=False)
if not Organization.get():
    fixture.load(yaml.safe_load(Path(entities).read_text()))
run_dev_server(run_server(config, system_folders=False), host=settings["ip"], port=settings["port"])
