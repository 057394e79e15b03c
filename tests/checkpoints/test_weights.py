"""Weights are read strictly, in place, and never by running code."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from tercet.checkpoints.weights import Source, load_weights, pickled_tensors, size_bytes
from tercet.errors import CheckpointError

CPU = torch.device("cpu")


def module() -> nn.Module:
    with torch.device("meta"):
        return nn.ModuleDict({"layer": nn.Linear(16, 48), "norm": nn.LayerNorm(16)})


def tensors() -> dict[str, torch.Tensor]:
    """Return weights under a checkpoint's names: three parts of one fused layer, and an old-style norm."""
    stored = {f"old.{part}.{kind}": torch.randn(*shape) for part in "qkv" for kind, shape in PARTS.items()}
    return stored | {"old.LayerNorm.gamma": torch.randn(16), "old.LayerNorm.beta": torch.randn(16)}


PARTS = {"weight": (16, 16), "bias": (16,)}
RENAMES = {"q": "layer:0", "k": "layer:1", "v": "layer:2", "LayerNorm": "norm"}


def source(*files: Path, **options: Any) -> Source:
    return Source(files, RENAMES, prefixes=("old.",), **options)


def test_parts_are_laid_on_top_of_each_other(tmp_path: Path) -> None:
    stored, file, model = tensors(), tmp_path / "model.safetensors", module()
    save_file(stored, file)
    load_weights(model, [source(file)], CPU, torch.float32)
    expected = torch.cat([stored[f"old.{part}.weight"] for part in "qkv"])
    assert torch.equal(model["layer"].weight, expected)
    assert torch.equal(model["norm"].weight, stored["old.LayerNorm.gamma"])
    assert torch.equal(model["norm"].bias, stored["old.LayerNorm.beta"])
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_weights_are_converted(tmp_path: Path) -> None:
    stored, file, model = tensors(), tmp_path / "model.safetensors", module()
    save_file(stored, file)
    load_weights(model, [source(file)], CPU, torch.bfloat16)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert torch.equal(model["norm"].weight, stored["old.LayerNorm.gamma"].bfloat16())


def test_a_tensor_of_the_right_type_stays_in_the_mapped_file(tmp_path: Path) -> None:
    file, model = tmp_path / "model.safetensors", module()
    save_file(tensors(), file)
    load_weights(model, [source(file)], CPU, torch.float32)
    address = model["norm"].weight.data_ptr()
    maps = [line.split() for line in Path("/proc/self/maps").read_text().splitlines() if str(file) in line]
    ranges = [[int(end, 16) for end in line[0].split("-")] for line in maps]
    assert any(low <= address < high for low, high in ranges)


def test_everything_that_does_not_fit_is_named(tmp_path: Path) -> None:
    stored, file = tensors(), tmp_path / "model.safetensors"
    del stored["old.LayerNorm.beta"], stored["old.k.weight"]
    stored |= {"old.surprise": torch.ones(2), "old.LayerNorm.gamma": torch.ones(3)}
    save_file(stored, file)
    with pytest.raises(CheckpointError) as caught:
        load_weights(module(), [source(file)], CPU, torch.float32)
    for part in (
        "missing: norm.bias",
        "unexpected: surprise",
        "norm.weight: stored as (3,)",
        "layer.weight: stored as",
    ):
        assert part in caught.value.message
    assert str(file) in caught.value.message


def test_what_has_no_use_may_be_ignored(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    save_file(tensors() | {"old.pooler.dense.weight": torch.ones(2)}, file)
    load_weights(module(), [source(file, ignored=("pooler",))], CPU, torch.float32)
    with pytest.raises(CheckpointError, match=r"unexpected: pooler\.dense"):
        load_weights(module(), [source(file, ignored=("pool",))], CPU, torch.float32)


def test_shards_are_read_together(tmp_path: Path) -> None:
    stored, model = tensors(), module()
    names = sorted(stored)
    shards = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    for file, part in zip(shards, (names[:3], names[3:]), strict=True):
        save_file({name: stored[name] for name in part}, file)
    load_weights(model, [source(*shards)], CPU, torch.float32)
    assert torch.equal(model["layer"].bias, torch.cat([stored[f"old.{part}.bias"] for part in "qkv"]))


@pytest.mark.parametrize("prefix", ["", "old."])
def test_a_tied_parameter_shares_memory_unless_stored(prefix: str, tmp_path: Path) -> None:
    with torch.device("meta"):
        model = nn.ModuleDict({"words": nn.Embedding(8, 4), "decoder": nn.Linear(4, 8, bias=False)})
    words, decoder, file = torch.randn(8, 4), torch.randn(8, 4), tmp_path / "model.safetensors"
    tied = Source((file,), {}, ("old.",), tied={"decoder.weight": "words.weight"})
    save_file({f"{prefix}words.weight": words}, file)
    load_weights(model, [tied], CPU, torch.float32)
    assert model["decoder"].weight.data_ptr() == model["words"].weight.data_ptr()
    save_file({f"{prefix}words.weight": words, f"{prefix}decoder.weight": decoder}, tmp_path / "own.safetensors")
    own = Source((tmp_path / "own.safetensors",), {}, ("old.",), tied={"decoder.weight": "words.weight"})
    load_weights(model, [own], CPU, torch.float32)
    assert torch.equal(model["decoder"].weight, decoder)


DAMAGES = {
    "empty": lambda b: b"",
    "header cut": lambda b: b[:40],
    "last byte missing": lambda b: b[:-1],
    "half missing": lambda b: b[: len(b) // 2],
    "bytes added": lambda b: b + b"more",
    "huge header": lambda b: (1 << 60).to_bytes(8, "little") + b[8:],
    "a web page": lambda b: b"<html>not found</html>",
    "a git pointer": lambda b: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_files_are_named(damage: str, tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    save_file(tensors(), file)
    file.write_bytes(DAMAGES[damage](file.read_bytes()))
    for read in (lambda: load_weights(module(), [source(file)], CPU), lambda: size_bytes([file])):
        with pytest.raises(CheckpointError, match=r"model\.safetensors is not a readable safetensors file"):
            read()


def test_an_extent_beyond_the_file_is_found_before_it_is_touched(tmp_path: Path) -> None:
    header = json.dumps({"x": {"dtype": "F32", "shape": [1 << 20], "data_offsets": [0, 1 << 22]}}).encode()
    file = tmp_path / "model.safetensors"
    file.write_bytes(len(header).to_bytes(8, "little") + header + b"\0" * 64)
    with pytest.raises(CheckpointError, match="not a readable"):
        size_bytes([file])


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"gone\.safetensors"):
        size_bytes([tmp_path / "gone.safetensors"])


def test_element_counts_come_by_stored_type(tmp_path: Path) -> None:
    file, more = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    save_file({"x": torch.ones(3, 5), "y": torch.tensor(1.0), "z": torch.ones(7, dtype=torch.float16)}, file)
    save_file({"w": torch.ones(2, 2)}, more)
    assert size_bytes([file, more]) == {"F32": 20, "F16": 7}


class Attack:
    """Runs code when it is unpickled carelessly."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.trace),)


class TestPickles:
    def test_a_side_file_is_a_source(self, tmp_path: Path) -> None:
        weight, bias = torch.randn(1, 16), torch.randn(1)
        torch.save({"weight": weight, "bias": bias}, tmp_path / "sparse_linear.pt")
        with torch.device("meta"):
            linear = nn.Linear(16, 1)
        load_weights(linear, [Source((tmp_path / "sparse_linear.pt",), {})], CPU, torch.float32)
        assert torch.equal(linear.weight, weight)

    @pytest.mark.parametrize("protocol", [2, 4, None])
    def test_code_is_never_run(self, protocol: int | None, tmp_path: Path) -> None:
        file, trace = tmp_path / "x.pt", tmp_path / "trace"
        if protocol is None:
            torch.save({"weight": Attack(trace)}, file)
        else:
            file.write_bytes(pickle.dumps({"weight": Attack(trace)}, protocol))
        with pytest.raises(CheckpointError, match=r"x\.pt is not a readable file of tensors"):
            pickled_tensors(file)
        assert not trace.exists()

    @pytest.mark.parametrize("content", [b"", b"junk", b"\x80\x02}q\x00."[:-1]])
    def test_damaged(self, content: bytes, tmp_path: Path) -> None:
        (tmp_path / "x.pt").write_bytes(content)
        with pytest.raises(CheckpointError, match="not a readable"):
            pickled_tensors(tmp_path / "x.pt")

    @pytest.mark.parametrize("content", [[1], {"a": "text"}, torch.ones(2)])
    def test_other_things(self, content: object, tmp_path: Path) -> None:
        torch.save(content, tmp_path / "x.pt")
        with pytest.raises(CheckpointError, match="something else than named tensors"):
            pickled_tensors(tmp_path / "x.pt")
