"""`tercet models` and `tercet doctor`: what is on this machine."""

import json
import re
from pathlib import Path

import pytest
import torch

from support.tiny_models import save_bert
from tercet.checkpoints.catalog import catalog
from tercet.engine.device import open_device
from tercet.nn.int8 import has_int8
from tercet.nn.jit.pairs import has_pairs
from tercet.nn.jit.tiles import has_tiles
from tercet_server import doctor
from tercet_server.cli import main

BUNDLED = "sentence-transformers/all-MiniLM-L6-v2"


def cached(cache: Path, model: str, commit: str) -> None:
    """Put a checkpoint into a hub cache, as the hub's own client lays it out."""
    repository = cache / f"models--{model.replace('/', '--')}"
    snapshot = repository / "snapshots" / commit
    snapshot.mkdir(parents=True)
    save_bert(snapshot)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    cached(tmp_path, "someone/tiny", "a" * 40)
    cached(tmp_path, "BAAI/bge-m3", "b" * 40)
    (tmp_path / "models--someone--partial" / "snapshots" / ("c" * 40)).mkdir(parents=True)
    return tmp_path


def test_models_lists_what_is_here_first_and_all_of_the_catalogue(
    cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["models", "--json", "--cache-dir", str(cache)]) == 0
    known = json.loads(capsys.readouterr().out)
    here = {model["id"]: model for model in known if model["origin"]}
    assert list(here) == [model["id"] for model in known[: len(here)]]
    assert set(here) == {"bm25", BUNDLED, "someone/tiny", "BAAI/bge-m3"}
    assert here["someone/tiny"] == {
        "id": "someone/tiny",
        "architecture": None,
        "origin": "cache",
        "revision": "a" * 40,
        "size_bytes": here["someone/tiny"]["size_bytes"],
    }
    assert here["someone/tiny"]["size_bytes"] > 1000
    assert here["BAAI/bge-m3"]["architecture"] == "XLMRobertaModel"
    ids = [model["id"] for model in known]
    assert len(ids) == len(set(ids))
    assert {model for models in catalog().models.values() for model in models} <= set(ids)


def test_models_as_a_table(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--cache-dir", str(cache)]) == 0
    header, *lines = capsys.readouterr().out.splitlines()
    assert header.split() == ["MODEL", "HERE", "SIZE", "ARCHITECTURE", "REVISION"]
    (line,) = [line for line in lines if line.startswith("someone/tiny")]
    assert line.split()[1] == "cache" and line.endswith("a" * 40)


def test_doctor_tries_what_it_reports(
    cache: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    assert main(["doctor", "--json", "--device", "cpu", "--cache-dir", str(cache), "--memory-budget", "2GiB"]) == 0
    found = {check["name"]: check for check in json.loads(capsys.readouterr().out)}
    assert all(check["state"] != "failed" for check in found.values())
    assert found["memory budget"]["detail"] == "2.0 GiB for weights"
    assert found["float32 kernels"]["state"] == "ok" and "attention fused, linear" in found["float32 kernels"]["detail"]
    for precision in ("float32", "bfloat16", "float16"):
        assert re.search(r", [\d,]+ GFLOP/s, \S+ from float32", found[f"{precision} kernels"]["detail"])
    int8 = "tercet-amx-int8, " if has_tiles() else "onednn-int8, "
    assert (int8 if has_int8() else "needs a CPU") in found["int8 kernels"]["detail"]
    assert ("tercet-int16, " if has_pairs() else "needs an x86 CPU") in found["int16 kernels"]["detail"]
    assert {"bfloat16 kernels", "float16 kernels", "threads", "torch", "tokenizers"} <= found.keys()
    assert found["compiled kernels"]["detail"] == f"kept in {cache / 'tercet' / 'kernels'}"
    assert found["hub"]["state"] == "note" and "HF_HUB_OFFLINE" in found["hub"]["detail"]
    assert found["hub cache"]["detail"].startswith(f"{cache}: 2 models")
    assert found[BUNDLED]["detail"].startswith("answers (3 tokens): Bert, packed, float32 on cpu")


def test_doctor_says_where_no_kernel_can_be_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.os, "access", lambda path, mode: path != tmp_path)
    for directory, why in ((tmp_path / "none" / "yet", "yet cannot be written"), (None, "no home directory")):
        check = doctor._kernels(directory)
        assert check.state == "note" and why in check.detail and "set XDG_CACHE_HOME" in check.detail


@pytest.mark.parametrize(("rate", "state"), [(100.0, "ok"), (10.0, "note")])
def test_doctor_says_where_a_precision_is_slower_than_float32(
    rate: float, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "_rate", lambda device, dtype: 50.0 if dtype == torch.float32 else rate)
    check = doctor._trial(open_device("cpu", "float32", None), "bfloat16")
    assert check.state == state and (", 10 GFLOP/s" in check.detail) == ("slower here" in check.detail) == (rate < 50)


def test_doctor_fails_when_something_essential_does(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--device", "cuda:9"]) == 1
    out = capsys.readouterr().out
    assert "✗ device" in out and "'cuda:9' is not there" in out


def test_doctor_tells_of_a_hub_that_is_out_of_reach(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    assert main(["doctor", "--device", "cpu", "--cache-dir", str(tmp_path / "none" / "yet")]) == 0
    out = capsys.readouterr().out
    assert "· hub                http://127.0.0.1:1 cannot be reached (ConnectError)" in out
    assert f"✓ hub cache          {tmp_path / 'none' / 'yet'}: no models" in out
