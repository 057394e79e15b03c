"""`tercet models`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from tercet_server.commands.choices import api_key_option
from tercet_server.commands.shown import json_text, print_table, size_text
from tercet_server.options import settings_options
from tercet_server.settings import Sources

if TYPE_CHECKING:
    from tercet.types import ModelInfo
    from tercet_server.inventory import Known


@click.command()
@click.option("--url", help="Ask the server at this address what it serves, instead of looking here.")
@api_key_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON: an array of objects.")
@partial(settings_options, names=["cache_dir"])
def models(url: str | None, api_key: str | None, as_json: bool, **flags: Any) -> None:
    """List the models that are here or known to work, or a server's.

    Here: built in, as an installed package, or complete in the hub cache; of the others, which can be downloaded, the
    catalogue knows that they work. Any other checkpoint of a known architecture works too. With --url: state, outputs
    and dimensions, tokens read, precision, bytes of weights, and how often each was used and loaded.
    """
    if url is not None:
        from tercet.client import Client

        with Client(url, api_key=api_key) as client:
            served = client.models()
        click.echo(json_text(served)) if as_json else _print_served(served)
        return
    if api_key is not None:
        raise click.UsageError("--api-key is for a server; give its --url")
    from tercet_server.inventory import inventory

    known = inventory(Sources.here(flags).read().cache_dir)
    click.echo(json_text(known)) if as_json else _print_known(known)


def _print_known(known: Sequence[Known]) -> None:
    rows = [
        (model.id, model.origin or "–", size_text(model.size_bytes), model.architecture or "–", model.revision or "–")
        for model in known
    ]
    print_table(("MODEL", "HERE", "SIZE", "ARCHITECTURE", "REVISION"), rows, right=("SIZE",))


def _print_served(served: Sequence[ModelInfo]) -> None:
    rows = [
        (
            info.id,
            info.state + (", pinned" if info.pinned else ""),
            _abilities(info),
            str(info.max_length or "–"),
            info.precision,
            size_text(info.size_bytes),
            str(info.hits),
            str(info.loads),
        )
        for info in served
    ]
    columns = ("MODEL", "STATE", "OUTPUTS", "TOKENS", "PRECISION", "SIZE", "USED", "LOADED")
    print_table(columns, rows, right=("TOKENS", "SIZE", "USED", "LOADED"))


def _abilities(info: ModelInfo) -> str:
    """Return the outputs with their dimensions, for a reranker how it scores; "–" before the model is opened."""
    outputs = " ".join(f"{output}:{info.dims.get(output, '?')}" for output in info.outputs)
    return outputs or ", ".join(info.scoring) or "–"
