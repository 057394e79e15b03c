"""`tercet encode` and `tercet score`: what they write is what the engine returns, and nothing is lost or repeated."""

import json
import os
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

from support.tiny_models import save_bert
from tercet.engine.engine import Engine
from tercet_server.cli import main

TERCET = [sys.executable, "-c", "import sys; from tercet_server.cli import main; sys.exit(main(sys.argv[1:]))"]
TEXTS = [f"the quick brown fox number {i} {'jumps ' * (i % 7)}" for i in range(50)]


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with Engine("cpu") as engine:
        yield engine


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    directory = tmp_path_factory.mktemp("bert")
    save_bert(directory)
    return str(directory)


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    path = tmp_path / "texts.txt"
    path.write_text("\n".join(TEXTS) + "\n")
    return path


def tercet(*arguments: object) -> None:
    assert main([str(argument) for argument in arguments]) == 0


def test_each_format_holds_what_the_engine_returns(model: str, engine: Engine, texts: Path, tmp_path: Path) -> None:
    expected = engine.encode(model, TEXTS, output_types=["dense", "multivector"], is_query=True)
    paths = [tmp_path / f"out.{extension}" for extension in ("jsonl", "parquet", "arrow")]
    for path in paths:
        tercet("encode", model, texts, "-o", path, "-t", "dense", "-t", "multivector", "--is-query", "--chunk-rows", 7)
    lines = [json.loads(line) for line in paths[0].read_text().splitlines()]
    tables = [lines, pq.read_table(paths[1]).to_pylist(), pa.ipc.open_file(paths[2]).read_all().to_pylist()]
    for rows in tables:
        assert [row["tokens"] for row in rows] == expected.tokens.tolist()
        assert [row["truncated"] for row in rows] == expected.truncated.tolist()
        np.testing.assert_allclose([row["dense"] for row in rows], expected.dense, atol=1e-6)
        for row, matrix in zip(rows, expected.multivector, strict=True):
            np.testing.assert_allclose(row["multivector"], matrix, atol=1e-6)
    assert tables[0] == tables[1] or np.array_equal(np.float32(tables[0][0]["dense"]), tables[1][0]["dense"])


@pytest.mark.parametrize(("dtype", "kind"), [("float32", "<f4"), ("float16", "<f2"), ("ubinary", "|u1")])
def test_npy_holds_the_dense_vectors(
    dtype: str, kind: str, model: str, engine: Engine, texts: Path, tmp_path: Path
) -> None:
    tercet("encode", model, texts, "-o", tmp_path / "out.npy", "--output-dtype", dtype, "--dimensions", 16)
    expected = engine.encode(model, TEXTS, output_dtype=dtype, dimensions=16).dense
    found = np.load(tmp_path / "out.npy")
    assert found.dtype.str == kind and found.shape == expected.shape
    if dtype != "ubinary":  # where a value is within rounding of 0 its bit may differ
        np.testing.assert_allclose(found, expected, atol=1e-3)


def test_sparse_rows_ids_and_options(
    engine: Engine, tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"key": i, "body": text}) + "\n" for i, text in enumerate(TEXTS)))
    columns = ("--text-column", "body", "--id-column", "key")
    tercet("encode", "bm25", path, "-t", "sparse", "--option", "top_k=2", *columns)
    rows = [json.loads(line) for line in capsysbinary.readouterr().out.splitlines()]
    expected = engine.encode("bm25", TEXTS, output_types=["sparse"], options={"top_k": 2}).sparse
    assert [row["id"] for row in rows] == [str(i) for i in range(50)]
    for row, vector in zip(rows, expected, strict=True):
        assert row["sparse"]["indices"] == vector.indices.tolist()
        assert np.array_equal(np.float32(row["sparse"]["values"]), vector.values)


def test_scores_stand_in_the_order_of_the_rows(model: str, engine: Engine, texts: Path, tmp_path: Path) -> None:
    query = "brown fox"
    tercet("score", model, texts, "--query", query, "-o", tmp_path / "one.npy", "--chunk-rows", 11)
    expected = engine.score(model, query, TEXTS).scores
    np.testing.assert_allclose(np.load(tmp_path / "one.npy"), expected, atol=1e-5)
    pairs = tmp_path / "pairs.parquet"
    queries = [("fox", "jumps", "brown fox")[i % 3] for i in range(50)]
    pq.write_table(pa.table({"q": queries, "text": TEXTS, "id": [str(-i) for i in range(50)]}), pairs)
    tercet("score", model, pairs, "--query-column", "q", "-o", tmp_path / "pairs.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "pairs.jsonl").read_text().splitlines()]
    alone = [engine.score(model, query, [text]).scores[0] for query, text in zip(queries, TEXTS, strict=True)]
    assert [row["id"] for row in rows] == [str(-i) for i in range(50)]
    np.testing.assert_allclose([row["score"] for row in rows], alone, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["encode", "m", "texts.csv"], "'.csv' is not one of"),
        (["encode", "m", "texts.txt", "-o", "out.csv"], "'.csv' is not one of"),
        (["encode", "m", "texts.txt", "--format", "npy"], "npy cannot be written to standard output"),
        (["encode", "m", "texts.txt", "-o", "o.npy", "-t", "sparse"], "npy holds one array"),
        (["encode", "m", "texts.txt", "-o", "o.npy", "--output-dtype", "int8"], "npy holds one array"),
        (["encode", "m", "texts.txt", "-o", "texts.txt", "--format", "jsonl"], "is an input and the output"),
        (["encode", "m", "texts.txt", "--option", "top_k"], "give NAME=VALUE"),
        (["encode", "m", "texts.txt", "--url", "http://x", "--device", "cpu"], "--device is for an engine in this"),
        (["encode", "m", "texts.txt", "--api-key", "k"], "--api-key is for a server"),
        (["encode", "m", "texts.txt", "--url", "http://x", "--api-key", "@missing"], "missing cannot be read"),
        (["encode", "m", "missing.txt"], "there is no such file"),
        (["score", "m", "texts.txt"], "lines of text have no queries"),
        (["score", "m", "texts.txt", "--query", "a", "--query-column", "b"], "exclude each other"),
    ],
)
def test_what_cannot_be_is_wrong_usage(
    arguments: list[str],
    message: str,
    texts: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(texts.parent)
    assert main(arguments) == 2
    assert message in capsys.readouterr().err
    assert list(texts.parent.iterdir()) == [texts]


def test_failures_are_1_and_say_where(
    model: str, texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["encode", model, str(texts), "-t", "sparse", "-o", str(tmp_path / "out.jsonl")]) == 1
    assert capsys.readouterr().err.startswith("tercet: rows 1 to 50: ")
    assert main(["encode", "no/such-model", str(texts)]) == 1
    assert "'no/such-model' is neither an installed package" in capsys.readouterr().err
    assert list(tmp_path.glob("out*")) == []


def test_a_model_directory_that_changed_is_refused(
    model: str, texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = str(tmp_path / "out.npy")
    tercet("encode", model, texts, "-o", output)
    tercet("encode", model, texts, "-o", output)
    assert capsys.readouterr().err.count("50 rows in ") == 2
    os.utime(Path(model) / "config.json")
    assert main(["encode", model, str(texts), "-o", output]) == 1
    assert "other settings (model_files " in capsys.readouterr().err


def command(*arguments: object) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*TERCET, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


@pytest.mark.slow
def test_a_pipe_that_nobody_reads_on_ends_quietly(tmp_path: Path) -> None:
    path = tmp_path / "texts.txt"
    path.write_text("\n".join(TEXTS * 400))
    script = '"$@" | head -n 1; echo ${PIPESTATUS[0]}'
    arguments = ["encode", "bm25", str(path), "-t", "sparse"]
    done = subprocess.run(
        ["bash", "-c", script, "bash", *TERCET, *arguments], capture_output=True, text=True, check=True
    )
    first, status = done.stdout.splitlines()
    assert json.loads(first)["tokens"] > 0 and status == "1"
    assert done.stderr == ""


@pytest.mark.slow
def test_lines_from_a_pipe_come_out_on_a_pipe() -> None:
    run = command("encode", "bm25", "-t", "sparse", "--format", "arrow")
    out, err = run.communicate("\n".join(TEXTS).encode())
    assert run.returncode == 0 and err == b""
    assert pa.ipc.open_stream(out).read_all().num_rows == 50


@pytest.mark.slow
def test_an_interrupted_run_is_130_and_goes_on(tmp_path: Path) -> None:
    """Rows arrive on standard input, so that the run cannot end before it is interrupted."""
    output = tmp_path / "out.jsonl"
    arguments = ("encode", "bm25", "-t", "sparse", "-o", output, "--chunk-rows", 5)
    part = output.with_name("out.jsonl.part")
    with command(*arguments) as run:
        assert run.stdin is not None and run.stderr is not None
        run.stdin.write("\n".join(TEXTS[:40]).encode() + b"\n")
        run.stdin.flush()
        while not part.exists() or part.stat().st_size < 4000:
            assert run.poll() is None
            time.sleep(0.01)
        run.send_signal(signal.SIGINT)
        assert run.wait(60) == 130
        assert run.stderr.read().strip() == b"tercet: interrupted"
    assert not output.exists() and part.exists()
    again = command(*arguments)
    _, err = again.communicate("\n".join(TEXTS).encode())
    assert again.returncode == 0 and b"50 rows in " in err
    assert len(output.read_text().splitlines()) == 50


@pytest.mark.slow
def test_a_run_that_is_killed_and_given_again_has_every_row_once(model: str, engine: Engine, tmp_path: Path) -> None:
    """SIGKILL to the real command, at moments drawn anew while it encodes."""
    seed = random.randrange(1 << 32)
    print(f"{seed=}")
    draw = random.Random(seed)
    texts = [f"{text} {i}" for i, text in enumerate(TEXTS * 40)]
    path, output = tmp_path / "texts.jsonl", tmp_path / "out.parquet"
    path.write_text("".join(json.dumps({"id": i, "text": text}) + "\n" for i, text in enumerate(texts)))
    part = output.with_name("out.parquet.part")
    for _ in range(5):
        run = command("encode", model, path, "-o", output, "--chunk-rows", 16)
        before = part.stat().st_size if part.exists() else 0
        while run.poll() is None and (not part.exists() or part.stat().st_size <= before):
            time.sleep(0.005)
        time.sleep(draw.uniform(0, 0.1))
        run.kill()
        run.communicate()
    last = command("encode", model, path, "-o", output, "--chunk-rows", 16)
    _, err = last.communicate()
    assert last.returncode == 0, err
    table = pq.read_table(output)
    assert table["id"].to_pylist() == [str(i) for i in range(len(texts))]
    expected = engine.encode(model, texts).dense
    np.testing.assert_allclose(np.stack(table["dense"].to_numpy()), expected, atol=1e-6)
    assert not part.exists()
