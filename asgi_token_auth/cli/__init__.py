"""The command line ``asgi-token-auth``. Needs the extra ``cli``."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command that the process's arguments name, and exit: 0, 1 where it failed, 2 where it was misused."""
    try:
        # Here and not above, so that a missing extra is a sentence and no traceback.
        from asgi_token_auth.cli.commands import root
        from asgi_token_auth.cli.process import run
    except ImportError as error:
        if error.name != "click":
            raise
        sys.stderr.write("The command line needs one more package: pip install 'asgi-token-auth[cli]'.\n")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(1)
    run(root)
