"""The commands of `tercet`, one a file. Their modules import nothing heavy, so that help and completion are quick."""

from __future__ import annotations

import click

from tercet.version import __version__
from tercet_server.commands.bench import bench
from tercet_server.commands.demo import demo
from tercet_server.commands.doctor import doctor
from tercet_server.commands.encode import encode
from tercet_server.commands.models import models
from tercet_server.commands.score import score
from tercet_server.commands.serve import serve

COMMANDS = (serve, encode, score, models, bench, doctor, demo)


class InOrder(click.Group):
    """A group that lists its commands in the order they were added."""

    def list_commands(self, context: click.Context) -> list[str]:
        """Return the names of the commands."""
        return list(self.commands)


@click.group(
    cls=InOrder,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted.",
)
@click.version_option(__version__, prog_name="tercet")
def tercet() -> None:
    """One inference engine for the small models of retrieval.

    Dense, sparse and multivector embeddings and rerank scores, over HTTP (serve), from files (encode, score) or from
    Python (import tercet).
    """


for command in COMMANDS:
    tercet.add_command(command)
