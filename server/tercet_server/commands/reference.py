"""The help of every command as Markdown: `python -m tercet_server.commands.reference docs/cli.md` writes it there."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import click

from tercet_server.commands import tercet

MARK = "<!-- from here on: python -m tercet_server.commands.reference docs/cli.md -->\n"
_WIDTH = 100


def reference() -> str:
    """Return the help of `tercet` and of each of its commands."""
    return MARK + "".join(_sections())


def _sections() -> Iterator[str]:
    names = {"tercet": tercet, **{f"tercet {name}": command for name, command in tercet.commands.items()}}
    for name, command in names.items():
        context = click.Context(command, info_name=name, terminal_width=_WIDTH, **command.context_settings)
        context.help_option_names = ["-h", "--help"]
        yield f"\n## {name}\n\n```text\n{command.get_help(context)}\n```\n"


def write(path: Path) -> None:
    """Put the reference into a file, behind its mark, in place of what is there."""
    before, _, _ = path.read_text(encoding="utf-8").partition(MARK)
    path.write_text(before + reference(), encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
