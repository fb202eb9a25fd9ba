"""HQ of vantage6 5 without Kubernetes: run_hq.py CONFIG PORT."""

from gevent import monkey

monkey.patch_all()

import sys  # noqa: E402

from vantage6.hq import run_hq  # noqa: E402

app = run_hq(sys.argv[1], system_folders=False)
app.ensure_db_initialized()
app.socketio.run(app.app, host="127.0.0.1", port=int(sys.argv[2]))
