"""`tercet` on the command line: which command, and what its end means to the shell."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from tercet.errors import TercetError

DONE, FAILED, INTERRUPTED = 0, 1, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `tercet`; return 0 when done, 1 for a failure, 2 for wrong usage, 130 when interrupted."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        status = _run(given)
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        return _fail("interrupted", INTERRUPTED)
    except BrokenPipeError:
        return _unread()
    except ImportError as error:
        if error.name is None or error.name.startswith("tercet"):
            raise
        package = error.name.partition(".")[0]
        extra = "demo" if given[:1] == ["demo"] else "server"
        return _fail(f"{package} is not installed: pip install 'tercet[{extra}]'", FAILED)
    except TercetError as error:
        return _fail(error.message, FAILED)


def _run(arguments: list[str]) -> int:
    import click

    from tercet_server.commands import tercet

    try:
        status = tercet.main(arguments, prog_name="tercet", standalone_mode=False)
    except click.Abort:
        raise KeyboardInterrupt from None
    except click.ClickException as error:
        error.show()
        return error.exit_code
    return status if isinstance(status, int) else DONE


def _fail(message: str, status: int) -> int:
    print(f"tercet: {message}", file=sys.stderr)
    return status


def _unread() -> int:
    """Let what is left of the output go nowhere: whoever read it has gone, as after `| head`."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return FAILED
