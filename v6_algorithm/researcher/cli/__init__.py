"""The command line, a file for each group of commands: they parse, call and print. The console script is `main`.

`commands` has all of them; it is read when one is run, so that who changes their mind meanwhile sees no traceback.
"""

from __future__ import annotations

import sys
from typing import Any


def __getattr__(name: str) -> Any:
    if name == "app":
        from v6_algorithm.researcher.cli.commands import app

        return app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def main() -> None:
    """Run the command line; the console script `v6-algorithm`."""
    try:
        from v6_algorithm.researcher.cli import terminal
        from v6_algorithm.researcher.cli.commands import app

        app()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except SystemExit as end:
        sys.exit(end.code or terminal.code_of_output())
