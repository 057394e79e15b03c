"""`tercet bench`."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tercet.errors import InvalidInputError
from tercet.types import OUTPUTS
from tercet_server.commands.choices import api_key_option, model_argument
from tercet_server.commands.shown import json_text, print_table

if TYPE_CHECKING:
    from tercet_server.load import Ask, Level, Plan

_COLUMNS = ("CALLERS", "REQUESTS/S", "TEXTS/S", "P50 MS", "P90 MS", "P99 MS", "REQUESTS", "ERRORS")


def _numbers(context: click.Context, parameter: click.Parameter, value: str) -> list[int]:
    try:
        numbers = [int(part) for part in value.split(",")]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < 1 or max(numbers) > 4096:
        raise click.BadParameter("give numbers from 1 to 4096, separated by commas", context, parameter)
    return numbers


@click.command()
@model_argument
@click.option("--url", default="http://127.0.0.1:8080", show_default=True, help="The server's address.")
@api_key_option
@click.option(
    "-c",
    "--concurrency",
    "concurrencies",
    default="1,8,32",
    show_default=True,
    callback=_numbers,
    metavar="N,N…",
    help="Callers at a time, one measurement for each number.",
)
@click.option(
    "--requests", type=click.IntRange(1), default=500, show_default=True, help="Requests of one measurement, at most."
)
@click.option(
    "--seconds",
    type=click.FloatRange(0, min_open=True),
    default=10.0,
    show_default=True,
    help="Time of one measurement, at most; answers under way are waited for.",
)
@click.option(
    "--warm-up", type=click.IntRange(0), default=8, show_default=True, help="Requests before, which do not count."
)
@click.option("--batch", type=click.IntRange(1), default=1, show_default=True, help="Texts of one request.")
@click.option(
    "--texts",
    "file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="File of texts, one a line; default short queries that come along.",
)
@click.option(
    "-t", "--output-type", type=click.Choice(OUTPUTS), default="dense", show_default=True, help="What to compute."
)
@click.option("--score", is_flag=True, help="Score the texts of each request against its first one, do not encode.")
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(0, min_open=True),
    default=60.0,
    show_default=True,
    help="Seconds that a request may take.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON: an array of one object for each concurrency.")
def bench(
    model: str,
    url: str,
    api_key: str | None,
    concurrencies: list[int],
    file: Path | None,
    as_json: bool,
    requests: int,
    seconds: float,
    warm_up: int,
    batch: int,
    **how: Any,
) -> int:
    """Measure throughput and latency of a running server.

    So many callers at a time send a request as soon as they have the answer to their last one. Nothing is sent twice:
    what is refused counts as an error, and any error makes the exit code 1. Client and server share the machine if
    both run on it.
    """
    from tercet_server.load import QUERIES, Plan

    plan = Plan(_lines(file) if file else QUERIES, batch, requests, seconds, warm_up)
    if not as_json:
        click.echo(f"{model} at {url}, {batch} {'text' if batch == 1 else 'texts'} a request", err=True)
    levels = asyncio.run(_measured(model, url, api_key, plan, concurrencies, how))
    documents = [level.document() for level in levels]
    if as_json:
        click.echo(json_text(documents))
    else:
        print_table(_COLUMNS, [_row(document) for document in documents], right=_COLUMNS)
    failed = next((level for level in levels if level.errors), None)
    if failed is not None:
        codes = ", ".join(f"{count} {code}" for code, count in failed.errors.items())
        click.echo(f"tercet: errors with {failed.concurrency} callers: {codes}; such as: {failed.example}", err=True)
    return int(failed is not None)


async def _measured(
    model: str, url: str, api_key: str | None, plan: Plan, concurrencies: list[int], how: Mapping[str, Any]
) -> list[Level]:
    from tercet.client import AsyncClient
    from tercet_server.load import measure

    async with AsyncClient(url, api_key=api_key, retries=0) as client:
        return await measure(_ask(client, model, **how), plan, concurrencies, lambda _: None)


def _ask(client: Any, model: str, output_type: str, score: bool, timeout_s: float) -> Ask:
    if score:
        return lambda texts: client.score(model, texts[0], texts, timeout_s=timeout_s)
    return partial(client.encode, model, output_types=[output_type], timeout_s=timeout_s)


def _lines(file: Path) -> list[str]:
    texts = [line for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    if not texts:
        raise InvalidInputError(f"{file} has no texts")
    return texts


def _row(document: Mapping[str, Any]) -> list[str]:
    times = ["–" if document[name] is None else f"{document[name]:,.1f}" for name in ("p50_ms", "p90_ms", "p99_ms")]
    rates = [f"{document[name]:,.1f}" for name in ("requests_per_s", "texts_per_s")]
    errors = sum(document["errors"].values())
    return [str(document["concurrency"]), *rates, *times, str(document["requests"]), str(errors)]
