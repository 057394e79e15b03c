"""Recorded passes: the same states as without, for every batch in the room, and none where they would not hold."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from support.gpu import needs_gpu
from support.reference import MILD_STD, draw_sequences, load_family, save_reference
from tercet.models.registry import Backbone, families
from tercet.nn import attention
from tercet.nn.batch import PackedBatch, TokenSequence
from tercet.nn.model import Model
from tercet.nn.recordings import RoomBatch
from tercet.nn.room import Arrays, Room
from tercet.nn.shapeless import HostShapeError
from tercet.nn.transfer import upload
from tercet.nn.varlen import VarlenKernel

WIDE = {"hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 128, "max_position_embeddings": 512}
CALLS = 4  # the first ones run kernel by kernel


def load(architecture: str, directory: Path, **settings: object) -> Model:
    family = families()[architecture]
    reference = save_reference(architecture, {**family.tiny, **WIDE, **settings}, directory, std=MILD_STD)
    return Model(load_family(family, reference, device="cuda", dtype=torch.bfloat16)["backbone"], {})


def states(model: Model, sequences: list[TokenSequence]) -> Tensor:
    with torch.inference_mode():
        return model.states(PackedBatch.of(sequences, "cuda")).float().cpu()


def fresh(model: Model, sequences: list[TokenSequence]) -> Tensor:
    with torch.inference_mode():
        hidden: Tensor = model.backbone(PackedBatch.of(sequences, "cuda"))
        return hidden.float().cpu()


def test_a_room_batch_knows_no_sequence() -> None:
    room = Room(16, 4, 16)
    block = upload(room.empty.present, room.layout, torch.device("cpu"))
    batch = RoomBatch.over(block, room)
    assert batch.cu_seqlens.tolist() == [0, 16, 16, 16, 16]
    assert len(batch.input_ids) == len(batch.positions) == 16 and len(batch.cu_seqlens) == 5
    assert batch.max_seqlen == 16 and batch.attended is None
    for shape in ("lengths", "runs", "real_runs", "extents", "first_pooled", "attended_index"):
        with pytest.raises(HostShapeError):
            getattr(batch, shape)


# Families whose attention reads each sequence's length on the host, to lay biases or windows around it.
BY_LENGTH = {"MPNet", "DebertaV2"}


def dense(q: Tensor, k: Tensor, v: Tensor, batch: PackedBatch, scale: float, window: tuple[int, int]) -> Tensor:
    """Attend as a varlen kernel does, one sequence after the other, by what a batch has on the device alone."""
    out = torch.zeros_like(q)
    left, right = (10**6 if side < 0 else side for side in window)
    counts = batch.cu_seqlens.diff() if batch.key_counts is None else batch.key_counts
    for (start, stop), keys in zip(pairwise(batch.cu_seqlens.tolist()), counts.tolist(), strict=True):
        assert stop - start <= batch.max_seqlen
        if keys:
            distance = torch.arange(keys) - torch.arange(stop - start)[:, None]
            seen = (distance >= -left) & (distance <= right)
            mine = q[start:stop].transpose(0, 1)
            k_, v_ = (
                x[start : start + keys].transpose(0, 1).repeat_interleave(q.shape[1] // k.shape[1], 0) for x in (k, v)
            )
            out[start:stop] = scaled_dot_product_attention(mine, k_, v_, attn_mask=seen, scale=scale).transpose(0, 1)
    return out


@pytest.mark.parametrize("family", dict.fromkeys(families().values()), ids=lambda family: family.__name__)
def test_a_room_gives_the_states_of_the_batch_in_it(
    family: type[Backbone], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a recording computes them, on a CPU: all of the room, by a kernel that knows sequences by the device alone."""
    monkeypatch.setattr(attention, "varlen_kernel", lambda *of: VarlenKernel("dense", dense))
    reference = save_reference(family.architectures[0], family.tiny, tmp_path, std=MILD_STD)
    backbone = load_family(family, reference)["backbone"]
    sequences = draw_sequences(reference.config, [3, 9, 1, 6], seed=1)
    block, room, expected = laid_out(sequences, backbone)
    with torch.inference_mode():
        if family.__name__ in BY_LENGTH:
            with pytest.raises(HostShapeError):
                backbone(RoomBatch.over(block, room))
            return
        ours = backbone(RoomBatch.over(block, room))[: len(expected)]
    assert (ours - expected).abs().max() <= 1e-4 and ours.std() > 0.05


def test_a_room_knows_which_keys_nobody_attends_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    family = families()["BertModel"]
    reference = save_reference("BertModel", family.tiny, tmp_path, std=MILD_STD)
    backbone = load_family(family, reference)["backbone"]
    sequences = [TokenSequence(np.arange(3, 9), attended=4), TokenSequence(np.arange(3, 6))]
    _, _, expected = laid_out(sequences, backbone)  # by a CPU's kernel
    monkeypatch.setattr(attention, "varlen_kernel", lambda *of: VarlenKernel("dense", dense))
    block, room, _ = laid_out(sequences, backbone)
    assert room.masked
    with torch.inference_mode():
        ours = backbone(RoomBatch.over(block, room))[: len(expected)]
    assert (ours - expected).abs().max() <= 1e-4


def laid_out(sequences: list[TokenSequence], backbone: Any) -> tuple[Tensor, Room, Tensor]:
    """Return the sequences in a room, and their states."""
    plain = PackedBatch.of(sequences)
    masked = plain.attended is not None
    room = Room.holding(len(plain.input_ids), len(sequences), plain.max_seqlen, masked)
    assert room is not None
    types = None if plain.token_types is None else plain.token_types.numpy()
    arrays = Arrays(plain.cu_seqlens.numpy(), plain.input_ids.numpy(), plain.positions.numpy(), types)
    laid = room.laid(arrays.for_attention(plain.attended or plain.lengths))
    block = upload(laid.present, room.layout, torch.device("cpu"))
    with torch.inference_mode():
        return block, room, backbone(plain)


BATCHES = [[5], [7], [3, 4], [16], [100, 2, 2], [90, 30], [60] * 30, [1] * 100, [400] * 5]


@pytest.fixture
def own_stream() -> Iterator[None]:
    """A recording cannot be made on a device's default stream."""
    with torch.cuda.stream(torch.cuda.Stream()):
        yield


@needs_gpu
@pytest.mark.usefixtures("own_stream")
@pytest.mark.parametrize("architecture", ["BertModel", "ModernBertModel", "Qwen3Model", "Gemma3TextModel", "NewModel"])
def test_a_recorded_pass_gives_the_same_states(architecture: str, tmp_path: Path) -> None:
    model = load(architecture, tmp_path)
    batches = [draw_sequences({"vocab_size": 128, "pad_token_id": 0}, n, seed=i) for i, n in enumerate(BATCHES)]
    for _ in range(CALLS):
        for sequences in batches:
            assert torch.cosine_similarity(states(model, sequences), fresh(model, sequences)).min() >= 0.9995
    made = [room for rooms in model.recordings._made.values() for room in rooms]
    assert len(made) == len({PackedBatch.of(s, "cuda").room for s in batches}) < len(batches)


@needs_gpu
@pytest.mark.usefixtures("own_stream")
def test_a_bias_by_distance_is_computed_batch_by_batch(tmp_path: Path) -> None:
    model = load("MPNetModel", tmp_path)
    for i in range(CALLS):
        sequences = draw_sequences({"vocab_size": 128, "pad_token_id": 1}, [5, 9], seed=i)
        assert torch.equal(states(model, sequences), fresh(model, sequences))
    assert not any(model.recordings._made.values())


@needs_gpu
@pytest.mark.usefixtures("own_stream")
def test_a_recorded_pass_leaves_out_keys_that_nobody_attends_to(tmp_path: Path) -> None:
    model = load("BertModel", tmp_path)
    for sequences in ([TokenSequence(np.arange(3, 9), attended=4), TokenSequence(np.arange(3, 6))],
                      [TokenSequence(np.arange(3, 9)), TokenSequence(np.arange(3, 6))]):  # fmt: skip
        for _ in range(CALLS):
            assert torch.cosine_similarity(states(model, sequences), fresh(model, sequences)).min() >= 0.9995
    assert sorted(room.masked for rooms in model.recordings._made.values() for room in rooms) == [False, True]
