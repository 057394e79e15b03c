"""`tercet encode`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from tercet.types import OUTPUT_DTYPES, OUTPUTS, TRUNCATIONS
from tercet_server.commands.choices import Where, model_argument, model_option, where_options
from tercet_server.commands.files import FileRun, file_options, inputs_argument


@click.command()
@model_argument
@inputs_argument
@click.option(
    "-t",
    "--output-type",
    "output_types",
    type=click.Choice(OUTPUTS),
    multiple=True,
    default=("dense",),
    show_default=True,
    help="What to compute; give it once for each, all come from one pass.",
)
@click.option("--is-query", is_flag=True, help="The texts are queries, which decides prompts, markers and lengths.")
@click.option("--dimensions", type=click.IntRange(1), help="Keep the first so many dimensions (Matryoshka).")
@click.option(
    "--output-dtype",
    type=click.Choice(OUTPUT_DTYPES),
    default="float32",
    show_default=True,
    help="Number type of dense and multivector results.",
)
@click.option("--prompt", help="Name of one of the model's prompts, or the text itself; '' for none.")
@click.option(
    "--truncate",
    type=click.Choice(TRUNCATIONS),
    default="end",
    show_default=True,
    help="Which end of an over-long text is cut; none makes it an error.",
)
@model_option
@file_options
@where_options
def encode(
    model: str,
    inputs: tuple[Path, ...],
    output_types: tuple[str, ...],
    is_query: bool,
    dimensions: int | None,
    output_dtype: str,
    prompt: str | None,
    truncate: str,
    options: Mapping[str, Any] | None,
    **more: Any,
) -> None:
    r"""Encode texts from files or standard input.

    Each INPUT is a text file (one text a line), JSON Lines, Parquet or Arrow, known by its extension; without one,
    lines of text are read from standard input. The output has one row for each text, in the same order: id, tokens,
    truncated and the vectors; .npy holds the dense vectors alone.

    Inputs may be larger than memory. A run that was killed is continued by the same command again, and the output
    then has every row once; until it is complete, finished rows lie in OUTPUT.part. A changed input or changed
    settings are refused. OUTPUT.tercet.json says what an output was made with.

    \b
    tercet encode sentence-transformers/all-MiniLM-L6-v2 texts.txt -o vectors.parquet
    zcat texts.gz | tercet encode bm25 -t sparse --url http://localhost:8080 > vectors.jsonl
    """
    choices = {
        "output_types": list(dict.fromkeys(output_types)),
        "is_query": is_query,
        "dimensions": dimensions,
        "output_dtype": output_dtype,
        "prompt": prompt,
        "truncate": truncate,
        "options": options,
    }
    where, run = Where.taken(more), FileRun(inputs=inputs, **more)
    if run.kind == "npy" and (choices["output_types"] != ["dense"] or output_dtype in ("int8", "uint8")):
        raise click.UsageError(
            "npy holds one array: only dense vectors, and no int8 or uint8, which have scales; use parquet or arrow"
        )
    from tercet_server.bulk.work import encoding

    settings = {"command": "encode", "model": model, **choices}
    run.run(where, settings, lambda inference: encoding(inference, model, choices), "encoding")
