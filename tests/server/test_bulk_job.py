"""Jobs that are killed, cut short, damaged and changed; what they make has every row once, in order."""

import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tercet.errors import InvalidInputError, ModelNotFoundError, TercetError
from tercet_server.bulk.job import Job, Work
from tercet_server.bulk.journal import Journal
from tercet_server.bulk.rows import Row

READ = {
    "jsonl": lambda path: [row["dense"] for row in map(json.loads, path.read_text().splitlines())],
    "parquet": lambda path: pq.read_table(path)["dense"].to_pylist(),
    "arrow": lambda path: pa.ipc.open_file(path).read_all()["dense"].to_pylist(),
    "npy": lambda path: np.load(path).tolist(),
}
ROWS = 203

# A job by itself: slow enough for a kill to hit it anywhere, and as quick to start as Python is.
SCRIPT = f"""
import sys, time
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
import test_bulk_job as t

def slow(rows):
    time.sleep(0.01)
    return t.vectors(rows)

print("ready", flush=True)
t.job(kind=sys.argv[2], work=slow, chunk_rows=int(sys.argv[3])).to_file(Path(sys.argv[1]), False)
"""


def rows(count: int = ROWS) -> Iterator[Row]:
    return (Row(str(i), f"id {i}") for i in range(count))


def vectors(rows: list[Row], revision: str = "1") -> pa.RecordBatch:
    """Return what each row's number makes."""
    numbers = np.array([int(row.text) for row in rows], np.float32)
    dense = pa.FixedSizeListArray.from_arrays(pa.array(np.stack([numbers, -numbers / 8], 1).ravel()), 2)
    columns = {"id": pa.array([row.id for row in rows]), "dense": dense}
    return pa.RecordBatch.from_pydict(columns, metadata={"model": "m", "revision": revision})


def expected(count: int = ROWS) -> list[list[float]]:
    return [[float(i), -i / 8] for i in range(count)]


def job(kind: str = "jsonl", work: Work = vectors, chunk_rows: int = 10, count: int = ROWS, **settings: object) -> Job:
    known = {"model": "m", "types": ["dense"], **settings}
    return Job(known, kind, rows(count), work, chunk_rows, lambda rows, fraction: None)


def cut_short(output: Path, chunks: int, kind: str = "jsonl", **settings: object) -> None:
    """Begin a job and let it fail after so many chunks."""

    def work(rows: list[Row]) -> pa.RecordBatch:
        if int(rows[0].text) >= 10 * chunks:
            raise ModelNotFoundError("gone")
        return vectors(rows)

    with pytest.raises(ModelNotFoundError, match=f"rows {10 * chunks + 1} to {10 * chunks + 10}: gone"):
        job(kind, work, **settings).to_file(output, False)


def counted(done: list[str]) -> Work:
    """Return work that notes the rows it is given."""

    def work(rows: list[Row]) -> pa.RecordBatch:
        done.extend(row.text for row in rows)
        return vectors(rows)

    return work


@pytest.mark.parametrize("kind", READ)
def test_every_format_holds_every_row_in_order(kind: str, tmp_path: Path) -> None:
    output = tmp_path / f"out.{kind}"
    assert job(kind).to_file(output, False) == ROWS
    assert READ[kind](output) == expected()
    assert sorted(path.name for path in tmp_path.iterdir()) == [output.name, f"{output.name}.tercet.json"]


@pytest.mark.parametrize("kind", READ)
def test_a_job_that_was_cut_short_goes_on_where_it_was(kind: str, tmp_path: Path) -> None:
    output = tmp_path / "out"
    cut_short(output, 7, kind)
    assert not output.exists()
    done: list[str] = []
    job(kind, counted(done)).to_file(output, False)
    assert sorted(done, key=int) == [str(i) for i in range(70, ROWS)]
    assert READ[kind](output) == expected()


@pytest.mark.slow
@pytest.mark.parametrize("kind", READ)
def test_kills_at_any_moment_lose_and_repeat_nothing(kind: str, tmp_path: Path) -> None:
    """SIGKILL again and again, at moments drawn anew, until a run gets through."""
    seed = random.randrange(1 << 32)
    print(f"{seed=}")
    draw = random.Random(seed)
    output = tmp_path / "out"
    for kills in range(60):
        process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(output), kind, str(draw.choice([1, 3]))], stdout=subprocess.PIPE
        )
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        if kills < 4:
            time.sleep(draw.uniform(0, 0.15))
            process.send_signal(signal.SIGKILL)
        process.stdout.close()
        if process.wait(60) == 0:
            break
        assert process.returncode == -signal.SIGKILL
    assert kills > 0 and READ[kind](output) == expected()
    assert [path.name for path in tmp_path.iterdir() if path.suffix in (".part", ".tmp")] == []


def test_a_journal_cut_at_any_byte_gives_the_same_output(tmp_path: Path) -> None:
    """What a kill, or a power cut in the middle of a write, can leave."""
    whole = tmp_path / "whole"
    cut_short(whole, 3)
    body = (tmp_path / "whole.part").read_bytes()
    output = tmp_path / "out"
    for end in [*range(0, len(body), 97), len(body) - 1, len(body)]:
        (tmp_path / "out.part").write_bytes(body[:end])
        job(count=40).to_file(output, True)
        assert READ["jsonl"](output) == expected(40)
        output.unlink()


def test_damage_in_a_journal_costs_what_lies_behind_it(tmp_path: Path) -> None:
    output = tmp_path / "out"
    cut_short(output, 8)
    part = tmp_path / "out.part"
    body = bytearray(part.read_bytes())
    body[len(body) // 2] ^= 1
    part.write_bytes(body)
    done: list[str] = []
    job(work=counted(done)).to_file(output, False)
    assert ROWS - 80 < len(done) < ROWS
    assert READ["jsonl"](output) == expected()


def test_a_job_that_is_done_is_left_alone_and_can_be_done_anew(tmp_path: Path) -> None:
    output = tmp_path / "out"
    job().to_file(output, False)
    before = output.stat()
    done: list[str] = []
    assert job(work=counted(done)).to_file(output, False) == ROWS
    assert done == [] and output.stat().st_mtime_ns == before.st_mtime_ns
    job(work=counted(done)).to_file(output, True)
    assert len(done) == ROWS and READ["jsonl"](output) == expected()


def test_a_kill_between_the_last_two_steps_is_mended(tmp_path: Path) -> None:
    """The output has its name, and the journal is still there."""
    output, part = tmp_path / "out", tmp_path / "out.part"
    cut_short(output, 19)
    kept = tmp_path / "kept"

    def keep(rows: list[Row]) -> pa.RecordBatch:
        kept.write_bytes(part.read_bytes())
        return vectors(rows)

    job(work=keep).to_file(output, False)
    kept.rename(part)
    assert job().to_file(output, False) == ROWS
    assert not part.exists() and READ["jsonl"](output) == expected()


@pytest.mark.parametrize("begun", [True, False])
def test_other_settings_are_refused_by_name(begun: bool, tmp_path: Path) -> None:
    output = tmp_path / "out"
    cut_short(output, 2) if begun else job().to_file(output, False)
    with pytest.raises(InvalidInputError, match=r"other settings \(model 'm', now 'n', extra None, now 1\)") as raised:
        job(model="n", extra=1).to_file(output, False)
    assert "--overwrite" in raised.value.message
    done: list[str] = []
    job(model="n", extra=1, work=counted(done)).to_file(output, True)
    assert len(done) == ROWS and READ["jsonl"](output) == expected()


def test_a_start_that_failed_does_not_stand_in_the_way(tmp_path: Path) -> None:
    output = tmp_path / "out"
    cut_short(output, 0, model="mistyped")
    assert list(tmp_path.iterdir()) == []
    Journal.open(tmp_path / "out.part", {"model": "killed before the first chunk"}).close()
    job().to_file(output, False)
    assert READ["jsonl"](output) == expected()


def test_a_changed_input_is_refused(tmp_path: Path) -> None:
    output = tmp_path / "out"
    cut_short(output, 2)

    def changed(count: int = ROWS) -> Job:
        given = job()
        others = (Row("1000") if row.text == "19" else row for row in rows(count))
        return Job(given.settings, given.kind, others, given.work, 10, given.report)

    with pytest.raises(InvalidInputError, match="the input has changed: its first 20 rows"):
        changed().to_file(output, False)
    job().to_file(output, False)
    with pytest.raises(InvalidInputError, match="the input has changed: its first 203 rows"):
        changed().to_file(output, False)
    with pytest.raises(InvalidInputError, match="more than the 203 rows"):
        job(count=ROWS + 1).to_file(output, False)


def test_an_output_of_unknown_origin_is_kept(tmp_path: Path) -> None:
    output = tmp_path / "out"
    output.write_text("mine")
    with pytest.raises(InvalidInputError, match="not made by this command"):
        job().to_file(output, False)
    assert output.read_text() == "mine"
    job().to_file(output, True)
    output.write_text("edited")
    with pytest.raises(InvalidInputError, match="not made by this command"):
        job().to_file(output, False)


def test_another_revision_halfway_is_refused(tmp_path: Path) -> None:
    output = tmp_path / "out"
    cut_short(output, 2)
    with pytest.raises(TercetError, match=r"from m at revision 1 with .* to m at revision 2"):
        job(work=lambda rows: vectors(rows, "2")).to_file(output, False)
    job().to_file(output, False)
    assert READ["jsonl"](output) == expected()


def test_one_process_at_a_time(tmp_path: Path) -> None:
    with (
        Journal.open(tmp_path / "out.part", {}),
        pytest.raises(TercetError, match=r"another process is writing .*out;"),
    ):
        job().to_file(tmp_path / "out", False)


def test_no_rows_are_an_error_and_leave_nothing(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="the input has no rows"):
        job(count=0).to_file(tmp_path / "out", False)
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(TercetError, match=r"missing/out\.part cannot be written: No such file or directory"):
        job().to_file(tmp_path / "missing" / "out", False)


def test_few_chunks_are_held_at_once(tmp_path: Path) -> None:
    """A slow consumer is not run away from: reading stays a few chunks ahead of what is on disk."""
    read = written = furthest = 0

    def watched() -> Iterator[Row]:
        nonlocal read
        for row in rows():
            read += 1
            yield row

    def report(count: int, fraction: float | None) -> None:
        nonlocal written, furthest
        furthest = max(furthest, read - written)
        written += count

    given = job()
    Job(given.settings, "jsonl", watched(), vectors, 10, report).to_file(tmp_path / "out", False)
    assert written == ROWS and furthest <= 50
