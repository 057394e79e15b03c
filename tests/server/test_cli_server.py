"""Commands around a running server: serve, models, bench, and encode over HTTP."""

import json
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from support.servers import LiveServer, started
from support.tiny_models import save_bert
from tercet.engine.engine import Engine
from tercet_server.cli import main

SERVE = [sys.executable, "-c", "import sys; from tercet_server.cli import main; sys.exit(main(sys.argv[1:]))", "serve"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    directory = tmp_path_factory.mktemp("bert")
    save_bert(directory)
    return str(directory)


@pytest.fixture(scope="module")
def server(model: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """`tercet serve` itself, with a key, stopped by SIGTERM at the end."""
    keys = tmp_path_factory.mktemp("keys") / "keys"
    keys.write_text("read secret-key\n")
    flags = ["--port", "0", "--model", model, "--alias", f"tiny={model}", "--api-key-file", str(keys)]
    server = started([*SERVE, *flags], {})
    try:
        assert server.listening.wait(120) and server.url, "".join(server.log)
        yield server
        server.signal(signal.SIGTERM)
        assert server.exit_status() == 0
    finally:
        server.stop()


@pytest.fixture
def at(server: LiveServer, tmp_path: Path) -> list[str]:
    (tmp_path / "key").write_text("secret-key\n")
    return ["--url", server.url, "--api-key", f"@{tmp_path / 'key'}"]


def test_encode_over_http_writes_what_the_engine_writes(
    at: list[str], model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = [f"brown fox {i}" for i in range(30)]
    (tmp_path / "texts.txt").write_text("\n".join(texts))
    output = tmp_path / "out.npy"
    assert main(["encode", "tiny", str(tmp_path / "texts.txt"), "-o", str(output), "--chunk-rows", "8", *at]) == 0
    assert "30 rows in " in capsys.readouterr().err
    with Engine("cpu") as engine:
        np.testing.assert_allclose(np.load(output), engine.encode(model, texts).dense, atol=1e-6)


def test_models_of_a_server(at: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "texts.txt").write_text("one")
    assert main(["encode", "tiny", str(tmp_path / "texts.txt"), "-o", str(tmp_path / "out.npy"), *at]) == 0
    assert main(["models", *at]) == 0
    header, *lines = capsys.readouterr().out.splitlines()
    assert header.split() == ["MODEL", "STATE", "OUTPUTS", "TOKENS", "PRECISION", "SIZE", "USED", "LOADED"]
    (line,) = [line for line in lines if line.startswith("tiny ")]
    assert "resident" in line and "dense:32" in line and "float32" in line
    assert main(["models", "--json", *at]) == 0
    (served,) = [info for info in json.loads(capsys.readouterr().out) if info["id"] == "tiny"]
    assert served["state"] == "resident" and served["size_bytes"] > 0


@pytest.mark.parametrize("more", [[], ["--score", "--batch", "4"]])
def test_bench_measures_each_concurrency(more: list[str], at: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["bench", "tiny", "-c", "1,3", "--requests", "20", "--warm-up", "2", "--json", *more, *at]
    assert main(arguments) == 0
    levels = json.loads(capsys.readouterr().out)
    assert [(level["concurrency"], level["requests"]) for level in levels] == [(1, 20), (3, 20)]
    for level in levels:
        assert level["errors"] == {}
        assert 0 < level["p50_ms"] <= level["p90_ms"] <= level["p99_ms"]
        batch = 4 if more else 1
        assert level["texts_per_s"] == pytest.approx(batch * level["requests_per_s"], abs=0.1)


def test_bench_prints_a_table_and_takes_texts(
    at: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text("one\n\ntwo\n")
    assert main(["bench", "tiny", "-c", "2", "--requests", "6", "--texts", str(texts), *at]) == 0
    header, line = capsys.readouterr().out.splitlines()
    assert header.split()[0] == "CALLERS" and line.split()[0] == "2" and line.split()[-2:] == ["6", "0"]


def test_bench_counts_errors_and_fails(at: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["bench", "tiny", "-c", "2", "--requests", "6", "--warm-up", "0", "-t", "sparse", "--json", *at]
    assert main(arguments) == 1
    out, err = capsys.readouterr()
    (level,) = json.loads(out)
    assert level["requests"] == 0 and level["p50_ms"] is None
    assert level["errors"] == {"unsupported_operation": 6}
    assert "6 unsupported_operation; such as: " in err


@pytest.mark.parametrize("command", [["bench", "tiny"], ["models"], ["encode", "tiny", "texts.txt"]])
def test_no_key_and_no_server_are_told(
    command: list[str],
    server: LiveServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "texts.txt").write_text("one")
    monkeypatch.chdir(tmp_path)
    assert main([*command, "--url", server.url]) == 1
    assert "key" in capsys.readouterr().err
    assert main([*command, "--url", "http://127.0.0.1:1"]) == 1
    assert "is the server running there?" in capsys.readouterr().err


@pytest.mark.parametrize("value", ["0", "a", "1,,2", "", "5000"])
def test_bench_takes_whole_numbers_of_callers(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "tiny", "-c", value]) == 2
    assert "give numbers from 1 to 4096" in capsys.readouterr().err


def test_serve_says_what_is_wrong_before_it_loads_anything(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--port", "many"]) == 2
    assert "--port='many': give a whole number" in capsys.readouterr().err
