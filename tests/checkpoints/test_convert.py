"""Pickled checkpoints become safetensors, and nothing else of them survives that could run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from support.hub_server import HubServer, Repo
from tercet.checkpoints import hub
from tercet.checkpoints.convert import convert, main
from tercet.errors import CheckpointError, InvalidInputError, UnsupportedModelError


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """Return a checkpoint with shared, transposed, half-precision and empty tensors, and a module of its own."""
    directory = tmp_path / "old"
    (directory / "2_Dense").mkdir(parents=True)
    words = torch.randn(8, 4)
    torch.save(
        {
            "words.weight": words,
            "decoder.weight": words,
            "transposed": torch.randn(3, 5).T,
            "view": torch.randn(10)[2:6],
            "half": torch.randn(4).half(),
            "empty": torch.ones(0),
            "also_empty": torch.ones(0),
        },
        directory / "pytorch_model.bin",
    )
    torch.save({"linear.weight": torch.randn(2, 4)}, directory / "2_Dense" / "pytorch_model.bin")
    (directory / "config.json").write_text("{}")
    (directory / "2_Dense" / "config.json").write_text("{}")
    (directory / "modeling.py").write_text("raise SystemExit")
    (directory / "training_args.bin").write_bytes(b"pickle")
    return directory


def pickled(file: Path) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = torch.load(file, weights_only=True)
    return tensors


def test_every_value_survives(old: Path, tmp_path: Path) -> None:
    target = tmp_path / "new"
    assert convert(old, target) == [target / "model.safetensors", target / "2_Dense" / "model.safetensors"]
    before, after = pickled(old / "pytorch_model.bin"), load_file(target / "model.safetensors")
    assert set(before) == set(after)
    for name, tensor in after.items():
        assert torch.equal(tensor, before[name])
        assert tensor.dtype == before[name].dtype
    dense = pickled(old / "2_Dense" / "pytorch_model.bin")
    assert torch.equal(load_file(target / "2_Dense" / "model.safetensors")["linear.weight"], dense["linear.weight"])


def test_only_data_files_are_copied(old: Path, tmp_path: Path) -> None:
    convert(old, tmp_path / "new")
    names = {str(file.relative_to(tmp_path / "new")) for file in (tmp_path / "new").rglob("*") if file.is_file()}
    assert names == {"config.json", "model.safetensors", "2_Dense/config.json", "2_Dense/model.safetensors"}
    assert hub.resolve(str(tmp_path / "new"), allow_download=False).origin == "directory"


def test_what_is_safe_already_stays(old: Path, tmp_path: Path) -> None:
    weights = {"a": torch.randn(3)}
    save_file(weights, old / "model.safetensors")
    assert convert(old, tmp_path / "new") == [tmp_path / "new" / "2_Dense" / "model.safetensors"]
    assert torch.equal(load_file(tmp_path / "new" / "model.safetensors")["a"], weights["a"])


def test_shards_become_one_file(tmp_path: Path) -> None:
    old, a, b = tmp_path / "old", torch.randn(3), torch.randn(4)
    old.mkdir()
    torch.save({"a": a}, old / "pytorch_model-00001-of-00002.bin")
    torch.save({"b": b}, old / "pytorch_model-00002-of-00002.bin")
    index = {"weight_map": {name: f"pytorch_model-0000{i}-of-00002.bin" for i, name in enumerate("ab", 1)}}
    (old / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    convert(old, tmp_path / "new")
    after = load_file(tmp_path / "new" / "model.safetensors")
    assert torch.equal(after["a"], a)
    assert torch.equal(after["b"], b)
    (old / "pytorch_model-00002-of-00002.bin").unlink()
    with pytest.raises(CheckpointError, match=r"pytorch_model-00002-of-00002\.bin, which is missing"):
        convert(old, tmp_path / "again")
    assert not (tmp_path / "again").exists(), "a failure leaves no half-made checkpoint"
    (old / "pytorch_model.bin.index.json").write_text("[]")
    with pytest.raises(CheckpointError, match="no index of weight files"):
        convert(old, tmp_path / "again")


def test_refusals(old: Path, tmp_path: Path) -> None:
    convert(old, tmp_path / "new")
    with pytest.raises(InvalidInputError, match="exists already"):
        convert(old, tmp_path / "new")
    with pytest.raises(UnsupportedModelError, match="nothing to convert"):
        convert(tmp_path / "new", tmp_path / "newer")


@pytest.mark.slow
def test_the_command(old: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tercet.checkpoints.convert", str(old)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == ["old-safetensors/model.safetensors", "old-safetensors/2_Dense/model.safetensors"]
    again = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert again.returncode == 1
    assert again.stderr.strip() == "old-safetensors exists already; name a directory that does not"


def test_a_model_of_the_hub(old: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = {str(file.relative_to(old)): file.read_bytes() for file in old.rglob("*") if file.is_file()}
    with HubServer({"acme/old": Repo(files)}) as server:
        downloaded = hub.Repository("acme/old", endpoint=server.endpoint, cache_dir=tmp_path / "cache").download(
            (*hub.FILES, *hub.PICKLES), weights=".bin"
        )
        assert not server.count("GET", "training_args.bin")
    assert main([str(downloaded), str(tmp_path / "new")]) == 0
    assert "model.safetensors" in capsys.readouterr().out
    assert set(load_file(tmp_path / "new" / "model.safetensors")) >= {"half", "view"}
