"""Options of commands that read rows and write results, and how such a command runs."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import click

from tercet.errors import InvalidInputError
from tercet_server.commands.choices import Where, composed

if TYPE_CHECKING:
    from tercet.types import Inference
    from tercet_server.bulk.job import Work

INPUTS = ("text", "jsonl", "parquet", "arrow")
OUTPUTS = ("jsonl", "parquet", "arrow", "npy")
_WEIGHTS = ("*.json", "*.safetensors", "*.pt", "*.txt", "*.model", "artifact.metadata")

file_options = composed(
    click.option(
        "-o",
        "--output",
        type=click.Path(dir_okay=False, allow_dash=True, path_type=Path),
        default="-",
        help="File to make, in the format of its extension: .jsonl, .parquet, .arrow or .npy; default standard output.",
    ),
    click.option("--format", "kind", type=click.Choice(OUTPUTS), help="Output format, whatever the extension."),
    click.option("--input-format", type=click.Choice(INPUTS), help="Input format, whatever the extension."),
    click.option("--text-column", default="text", show_default=True, help="Column or key of the texts."),
    click.option("--id-column", help="Column or key of the rows' ids; default 'id' where there is one."),
    click.option(
        "--chunk-rows",
        type=click.IntRange(1, 1_000_000),
        default=1024,
        show_default=True,
        help="Rows done at a time; memory holds a few times as many, a kill costs at most as many.",
    ),
    click.option(
        "--overwrite", is_flag=True, help="Replace an output, finished or begun, that was made in another way."
    ),
    click.option("-q", "--quiet", is_flag=True, help="Show no progress and no summary."),
)
inputs_argument = click.argument(
    "inputs", nargs=-1, metavar="[INPUT]...", type=click.Path(allow_dash=True, path_type=Path)
)


class FileRun:
    """One run of a command over files; made from the values of `file_options`."""

    def __init__(
        self,
        *,
        inputs: Sequence[Path],
        output: Path,
        kind: str | None,
        input_format: str | None,
        text_column: str,
        id_column: str | None,
        chunk_rows: int,
        overwrite: bool,
        quiet: bool,
        query_column: str | None = None,
    ) -> None:
        from tercet_server.bulk.read import STDIN, Columns, read_rows
        from tercet_server.bulk.write import format_of

        self._output, self._overwrite, self._quiet, self._chunk_rows = output, overwrite, quiet, chunk_rows
        if any(path.exists() and output.exists() and path.samefile(output) for path in inputs):
            raise click.UsageError(f"{output} is an input and the output; give another --output")
        columns = Columns(text_column, id_column, query_column)
        try:
            self.kind = format_of(output, kind)
            self._rows = read_rows(list(inputs) or [STDIN], input_format, columns)
        except InvalidInputError as error:
            raise click.UsageError(error.message) from None
        self._columns = {"text_column": text_column, "id_column": id_column, "query_column": query_column}

    def run(self, where: Where, settings: Mapping[str, Any], work: Callable[[Inference], Work], verb: str) -> None:
        """Do the work on all rows.

        Args:
            where: what runs the model.
            settings: what decides the results, "model" among it, as plain JSON values.
            work: from what runs the model to the work.
            verb: what is being done, for the progress bar.
        """
        from tercet_server.bulk.job import Job
        from tercet_server.bulk.progress import progress_bar
        from tercet_server.bulk.write import STDOUT

        started = perf_counter()
        with where.inference() as (inference, precision), progress_bar(verb, self._quiet) as report:
            known = {**settings, **self._columns, "format": self.kind, "precision": precision}
            files = None if where.url else _files_of(settings["model"])
            job = Job(
                settings={**known, "model_files": files},
                kind=self.kind,
                rows=self._rows,
                work=work(inference),
                chunk_rows=self._chunk_rows,
                report=report,
            )
            if self._output == STDOUT:
                job.to_stream(sys.stdout.buffer)
                return
            rows = job.to_file(self._output, self._overwrite)
        if not self._quiet:
            click.echo(f"{rows:,} rows in {self._output} after {perf_counter() - started:.1f} s", err=True)


def _files_of(model: str) -> str | None:
    """Return what changes when a model's directory does; None for what is no directory and has a revision instead."""
    directory = Path(model).expanduser()
    if not directory.is_dir():
        return None
    found = sorted({file for pattern in _WEIGHTS for file in directory.rglob(pattern)})
    known = [(str(file.relative_to(directory)), file.stat().st_size, file.stat().st_mtime_ns) for file in found]
    return hashlib.blake2b(repr(known).encode(), digest_size=16).hexdigest()
