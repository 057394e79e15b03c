"""Programs: the bytes of the pass called function by function, for every batch, and none where they would not hold."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from support.reference import MILD_STD, draw_sequences, load_family, save_reference
from tercet.engine.device import open_device
from tercet.models.registry import Backbone, families
from tercet.nn import compiled_rows, helpers, programs
from tercet.nn.batch import PackedBatch, TokenSequence
from tercet.nn.by_rows import RowWeight
from tercet.nn.heads import DenseHead, Normalize
from tercet.nn.int8 import Int8Weight
from tercet.nn.jit.code import vector_shape
from tercet.nn.jit.product_kernel import panels_shape
from tercet.nn.linear import Linear, layout_of, prepare
from tercet.nn.model import Model
from tercet.nn.multivector import MultiVectorHead
from tercet.nn.packed import packing
from tercet.nn.products import vectors_for
from tercet.nn.programs import MOST_SEQUENCES, MOST_TOKENS, UntraceableError, traced
from tercet.nn.team import compute_with, noted

if vector_shape() is None:
    pytest.skip("this processor has no vectors that the kernels are for", allow_module_level=True)

WIDE = {"hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 128, "max_position_embeddings": 512}
# By functions of our own alone.
FAMILIES = {"Bert", "Roberta", "DistilBert", "Electra", "MPNet", "ModernBert", "NomicBert", "Gte", "Qwen2", "Qwen3"}
AT_ONCE = """
import sys, threading, torch
from tercet.models.bert import Bert
from tercet.nn.linear import prepare
from tercet.nn.programs import traced

backbone = Bert.from_config({{**Bert.tiny, **{wide}, "hidden_act": "gelu"}})
prepare(backbone)
sys.setswitchinterval(1e-6)
start, made = threading.Barrier(4), []

def trace():
    start.wait()
    with torch.inference_mode():
        made.append(traced(backbone, []))

threads = [threading.Thread(target=trace) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(len(made))
"""
LENGTHS = [
    [1],
    [5],
    [12],
    [3, 40, 1, 12],
    [200, 100, 300],
    [7] * 60,
    [MOST_TOKENS - 700, 400, 300],
    [1] * MOST_SEQUENCES,
]


@pytest.fixture(params=[1, 2])
def cores(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    compute_with(request.param)
    yield request.param
    compute_with(before)


def load(
    family: type[Backbone], directory: Path, dtype: torch.dtype = torch.float32, **settings: Any
) -> tuple[Backbone, dict[str, Any]]:
    """Return a backbone whose weights are laid, as they are after a model's first batch, and its configuration."""
    wide = {**WIDE, "num_attention_heads": 2, "embedding_size": 48, "dim": 64, "n_heads": 2, "hidden_dim": 128}
    wide |= {"n_embd": 64, "n_head": 2, "n_inner": 128, "n_positions": 512, "head_dim": 32}
    sizes = {name: value for name, value in wide.items() if name in family.tiny}
    reference = save_reference(family.architectures[0], {**family.tiny, **sizes, **settings}, directory, std=MILD_STD)
    backbone: Any = load_family(family, reference, dtype=dtype)["backbone"]
    with torch.inference_mode():
        backbone(PackedBatch.of(draw([3])))
    lay(backbone)
    return backbone, reference.config


def lay(module: nn.Module) -> None:
    for part in module.modules():
        if isinstance(part, Linear) and isinstance(part.packed, RowWeight):
            part.packed.lay()


@pytest.fixture
def bert(tmp_path: Path) -> Backbone:
    return load(families()["BertModel"], tmp_path)[0]


def draw(lengths: list[int], prompt: int = 0) -> list[TokenSequence]:
    rng = np.random.default_rng(sum(lengths))
    return [TokenSequence(rng.integers(1, 120, n), pooled_from=min(prompt, n - 1)) for n in lengths]


@pytest.mark.parametrize("family", dict.fromkeys(families().values()), ids=lambda family: family.__name__)
def test_a_program_gives_the_bytes_of_the_pass(family: type[Backbone], tmp_path: Path, cores: int) -> None:
    backbone, config = load(family, tmp_path)
    with torch.inference_mode():
        if family.__name__ not in FAMILIES:
            with pytest.raises((UntraceableError, programs.HostShapeError)):
                traced(backbone, [])
            return
        program = traced(backbone, [])
        for lengths in LENGTHS:
            batch = PackedBatch.of(draw_sequences(config, lengths, seed=sum(lengths)))
            (states,) = program.run(batch)
            assert torch.equal(states, backbone(batch)) and states.std() > 0.05


@pytest.mark.usefixtures("cores")
@pytest.mark.parametrize("dtype", [torch.int8, torch.int16])
def test_a_program_in_whole_numbers(dtype: torch.dtype, tmp_path: Path) -> None:
    if packing(dtype) is None:
        pytest.skip(f"this processor does not multiply {dtype}")
    backbone, config = load(families()["BertModel"], tmp_path, dtype)
    with torch.inference_mode():
        if packing(dtype) is Int8Weight:
            with pytest.raises(UntraceableError):
                traced(backbone, [])
            return
        program = traced(backbone, [])
        for lengths in LENGTHS:
            batch = PackedBatch.of(draw_sequences(config, lengths, seed=sum(lengths)))
            (states,) = program.run(batch)
            assert torch.equal(states, backbone(batch)) and states.std() > 0.05


@pytest.mark.usefixtures("cores")
def test_what_one_pass_left_changes_nothing_for_the_next(bert: Backbone) -> None:
    """Among them many in a row, of which no thread may see another's memory before it is written."""
    batches = [PackedBatch.of(draw(lengths)) for lengths in LENGTHS]
    with torch.inference_mode():
        program, expected = traced(bert, []), [bert(batch) for batch in batches]
        results = [program.run(batch)[0] for _ in range(40) for batch in batches]
    assert all(map(torch.equal, results, expected * 40))


def test_tokens_that_nobody_attends_to_and_token_types(bert: Backbone) -> None:
    sequences = [
        TokenSequence(np.arange(3, 40), attended=9),
        TokenSequence(np.arange(3, 9), token_types=np.array([0, 0, 0, 1, 1, 1])),
    ]
    with torch.inference_mode():
        program = traced(bert, [])
        for batch in (PackedBatch.of(sequences), PackedBatch.of(sequences[1:]), PackedBatch.of(sequences[:1])):
            assert torch.equal(program.run(batch)[0], bert(batch))


HEADS = {
    **{how: DenseHead((how,), [Normalize()]) for how in ("mean", "cls", "mean_sqrt_len")},
    "projected": MultiVectorHead([Linear(64, 32, bias=False), Normalize()]),
    "max": DenseHead(("max",), [Normalize()]),
    "states": MultiVectorHead([]),
}


@pytest.fixture
def model(bert: Backbone) -> Model:
    heads = nn.ModuleDict(HEADS)
    for parameter in heads.parameters():
        nn.init.normal_(parameter, generator=torch.Generator().manual_seed(3))
    prepare(heads)
    lay(heads)
    return Model(bert, dict(heads.items()))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("names", "whole"),
    [
        (["mean"], True),
        (["cls", "projected"], True),
        (["mean_sqrt_len", "states"], False),  # states that are a result and read on
        (["states"], True),
        (["max"], False),  # by torch's operations
    ],
)
@pytest.mark.parametrize("prompt", [0, 2])
def test_heads_are_part_of_a_program_where_they_can_be(
    model: Model, names: list[str], whole: bool, prompt: int
) -> None:
    for lengths in LENGTHS:
        batch = PackedBatch.of(draw(lengths, prompt))
        with torch.inference_mode():
            expected = [model.heads[name](model.backbone(batch), batch) for name in names]
        results = model(batch, names)
        assert all(map(torch.equal, results.values(), expected))
    made = {heads: program for (_, heads), program in model.programs._made.items()}
    assert (made[tuple(names)] is not None) == whole
    assert whole or made[()] is not None


def test_results_are_the_callers(model: Model) -> None:
    first = model(
        PackedBatch.of(draw([5, 6])),
        [
            "states",
        ],
    )["states"]
    kept = first.clone()
    model(PackedBatch.of(draw([9, 4])), ["states"])
    assert torch.equal(first, kept)


def test_a_row_that_a_table_lacks_is_an_error(bert: Backbone) -> None:
    wrong = {
        "token id 128 is not in its table of 128 rows": TokenSequence(np.array([3, 128])),
        "token id -1 is not in its table of 128 rows": TokenSequence(np.array([-1, 127])),
        "position 512 is not in its table of 512 rows": TokenSequence(np.full(513, 3)),
        "token type 2 is not in its table of 2 rows": TokenSequence(np.array([3, 4]), token_types=np.array([0, 2])),
    }
    with torch.inference_mode():
        program = traced(bert, [])
        for message, sequence in wrong.items():
            for compute in (bert, program.run):
                with pytest.raises(IndexError, match=message):
                    compute(PackedBatch.of([sequence]))


def test_threads_have_programs_of_their_own(model: Model) -> None:
    """Each computes in its own memory, at the same time as the other."""
    batches = [PackedBatch.of(draw(lengths)) for lengths in LENGTHS]
    expected = [model(batch, ["mean"])["mean"] for batch in batches]
    together = threading.Barrier(2)

    def work(_: int) -> bool:
        compute_with(1)
        together.wait(30)
        return all(torch.equal(model(b, ["mean"])["mean"], e) for b, e in [*zip(batches, expected, strict=True)] * 20)

    with ThreadPoolExecutor(2) as pool:
        assert all(pool.map(work, range(2)))
    assert len(set(model.programs._made.values())) == 3


def test_threads_trace_at_once_when_nothing_was_traced_before() -> None:
    script = AT_ONCE.format(wide=WIDE)
    for _ in range(2):  # without a lock, five of six end by a segmentation fault
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (0, "4\n"), done.stderr


def test_none_before_a_first_pass_and_weights_are_laid_nor_for_a_large_batch(tmp_path: Path) -> None:
    family = families()["BertModel"]
    settings = {**family.tiny, **WIDE, "max_position_embeddings": 2048}
    reference = save_reference("BertModel", settings, tmp_path, std=MILD_STD)
    backbone = load_family(family, reference)["backbone"]
    made, batch = programs.Programs(backbone), PackedBatch.of(draw([4]))
    with torch.inference_mode():
        for made.wanted in (False, True):
            assert made.run(batch, {}) is None
        lay(backbone)
        for made.wanted in (False, True):
            assert (made.run(batch, {}) is not None) is made.wanted
        assert made.run(PackedBatch.of(draw([MOST_TOKENS])), {}) is not None
        assert made.run(PackedBatch.of(draw([MOST_TOKENS + 1])), {}) is None
        assert made.run(PackedBatch.of(draw([1] * MOST_SEQUENCES)), {}) is not None
        assert made.run(PackedBatch.of(draw([1] * (MOST_SEQUENCES + 1))), {}) is None


def test_an_engine_makes_no_batch_that_is_too_large() -> None:
    device = open_device("cpu", "float32", None)
    assert device.max_batch_tokens <= min(MOST_TOKENS, MOST_SEQUENCES)


def test_none_by_a_librarys_products(bert: Backbone) -> None:
    layer = next(part for part in bert.modules() if isinstance(part, Linear))
    layer.packed = None
    made = programs.Programs(bert)
    made.wanted = True
    for _ in range(2):
        assert made.run(PackedBatch.of(draw([4])), {}) is None


class _OtherRows(nn.Module):
    """Normalises something that is not the batch's tokens, and adds nothing of it."""

    def __init__(self, rows: int) -> None:
        super().__init__()
        self.table = torch.ones(rows, 64)

    def forward(self, batch: PackedBatch) -> Tensor:
        compiled_rows.unit(self.table, 1e-12)
        return compiled_rows.unit(compiled_rows.embed(batch.lookups, self.table, None, None), 1e-12)


def test_none_with_rows_that_are_not_the_batchs() -> None:
    with pytest.raises(UntraceableError, match="rows are not the batch's"), torch.inference_mode():
        traced(_OtherRows(48), [])


@pytest.mark.parametrize(("tokens", "blocks", "blocks_by_avx2"), [(4, 1, 1), (600, 2, 7)])
def test_no_more_cores_than_the_largest_product_has_units(
    bert: Backbone, tokens: int, blocks: int, blocks_by_avx2: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with torch.inference_mode():
        program, asked = traced(bert, []), []
        monkeypatch.setattr(helpers.HELPERS, "run", lambda function, words, cores: asked.append(cores))
        monkeypatch.setattr(torch, "get_num_threads", lambda: 512)
        program.run(PackedBatch.of(draw([tokens // 2] * 2)))
    shape = vector_shape()
    assert shape is not None
    kind, width = layout_of(bert), 3 * 64
    assert kind is not None and issubclass(kind, RowWeight)
    panels = panels_shape(64, width, vectors_for(width, kind.numbers))[0]
    assert asked == [panels * (blocks if shape[1] >= 32 else blocks_by_avx2)]


def test_what_is_noted_does_not_run() -> None:
    x = torch.ones(3, 64)
    with noted() as steps:
        y = compiled_rows.unit(x, 1e-12)
        y.zero_()
        in_another_thread = ThreadPoolExecutor(1).submit(partial(compiled_rows.unit, x, 1e-12)).result()
    assert len(steps) == 1 and not y.any()
    assert torch.equal(in_another_thread, compiled_rows.unit(x, 1e-12))
