"""The command line ``asgi-token-auth``. Needs the extra ``cli``."""

import os
import sys


def main() -> None:
    """Run the command that the process's arguments name, and exit.

    With 0, 1 where it failed, 2 where it was misused, 130 where it was interrupted.
    """
    try:
        import signal

        # A handler and no exception, which some of what is imported would swallow or print. A shell may have said
        # that Ctrl-C is not for this process.
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, _interrupted)
        # Here and not above, so that a missing extra is a sentence and no traceback, and an interrupt as well.
        from asgi_token_auth.cli.commands import root
        from asgi_token_auth.cli.process import run

        run(root)
    except ImportError as error:
        if error.name != "click":
            raise
        sys.stderr.write("The command line needs one more package: pip install 'asgi-token-auth[cli]'.\n")
        sys.exit(1)
    except KeyboardInterrupt:
        _interrupted()


def _interrupted(*_: object) -> None:
    try:
        os.write(2, b"Interrupted; nothing was changed.\n")
    finally:
        # Nothing is open yet that had to be closed, and the imports under way shall not go on.
        os._exit(130)
