"""`tercet doctor`."""

from __future__ import annotations

from functools import partial
from typing import Any

import click

from tercet_server.commands.choices import ENGINE
from tercet_server.options import settings_options
from tercet_server.settings import Sources

_MARKS = {"ok": ("✓", "green"), "note": ("·", "yellow"), "failed": ("✗", "red")}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON: an array of name, state and detail.")
@partial(settings_options, names=[name for name in ENGINE if name != "allow_download"])
def doctor(as_json: bool, **flags: Any) -> int:
    """Find out what works here and what will run where.

    Tries the device in each precision, the hub, its cache and the installed model packages. What is marked ✓ works,
    · is worth knowing, ✗ keeps models from running and makes the exit code 1. Nothing is downloaded.
    """
    from tercet_server.doctor import checks

    settings = Sources.here(flags).read()
    found = []
    for check in checks(settings):
        found.append(check)
        if not as_json:
            mark, color = _MARKS[check.state]
            click.echo(f"{click.style(mark, fg=color)} {check.name:<18} {check.detail}")
    if as_json:
        from tercet_server.commands.shown import json_text

        click.echo(json_text([check.document() for check in found]))
    return int(any(check.state == "failed" for check in found))
