"""`tercet score`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from tercet_server.commands.choices import Where, model_argument, model_option, where_options
from tercet_server.commands.files import FileRun, file_options, inputs_argument


@click.command()
@model_argument
@inputs_argument
@click.option("--query", help="Score every text against this query; default each against its own.")
@click.option("--query-column", help="Column or key of the rows' own queries.  [default: query]")
@model_option
@file_options
@where_options
def score(
    model: str,
    inputs: tuple[Path, ...],
    query: str | None,
    query_column: str | None,
    options: Mapping[str, Any] | None,
    **more: Any,
) -> None:
    r"""Score texts against queries, from files or standard input.

    The rows of JSON Lines, Parquet and Arrow hold a text and its query; with --query all texts share one, and plain
    lines of text will do. The output has one row for each text, in the same order: id, tokens, truncated and score;
    .npy holds the scores alone. Runs are continued as those of `encode` are.

    \b
    tercet score cross-encoder/ms-marco-MiniLM-L-6-v2 --query "hybrid search" passages.txt -o scores.jsonl
    tercet score BAAI/bge-reranker-v2-m3 pairs.parquet -o scores.parquet
    """
    if query is not None and query_column is not None:
        raise click.UsageError("--query and --query-column exclude each other")
    where, column = Where.taken(more), None if query is not None else query_column or "query"
    if column is not None and _has_text(inputs, more["input_format"]):
        raise click.UsageError("lines of text have no queries of their own; give --query, or another --input-format")
    run = FileRun(inputs=inputs, query_column=column, **more)
    from tercet_server.bulk.work import scoring

    settings = {"command": "score", "model": model, "query": query, "options": options}
    run.run(where, settings, lambda inference: scoring(inference, model, {"options": options}, query), "scoring")


def _has_text(inputs: tuple[Path, ...], given: str | None) -> bool:
    from tercet_server.bulk.read import STDIN, format_of

    return any(format_of(path, given) == "text" for path in inputs or (STDIN,))
