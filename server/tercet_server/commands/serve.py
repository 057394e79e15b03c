"""`tercet serve`."""

from __future__ import annotations

from typing import Any

import click

from tercet_server.options import settings_options
from tercet_server.settings import Sources


@click.command()
@settings_options
def serve(**flags: Any) -> int:
    """Serve models over HTTP.

    Each option can also be given as the environment variable in brackets, or as a key of a TOML file (--config);
    a flag wins over the variable, the variable over the file. SIGTERM and Ctrl-C stop once the requests under way
    are answered; a second one stops at once. SIGHUP reads the settings again.
    """
    from tercet_server.run import serve as run  # torch, which --help can do without

    return run(Sources.here(flags))
