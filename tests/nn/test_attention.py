"""Packed attention against softmax written out, on ragged batches drawn here."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from support.gpu import needs_gpu
from tercet.nn import attention as module
from tercet.nn.attention import Bias, attention
from tercet.nn.batch import PackedBatch, Run, TokenSequence
from tercet.nn.distance_bias import DistanceBias
from tercet.nn.jit.code import vector_shape

pytestmark = pytest.mark.usefixtures("kernel")
LENGTHS = (1, 2, 7, 7, 7, 40, 40, 150)


@pytest.fixture(params=["fused", "runs"])
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each of the two ways that a CPU attends."""
    if request.param == "runs":
        monkeypatch.setattr(module, "fuses", lambda *of: False)
    elif vector_shape() is None:
        pytest.skip("this processor has no vectors that fused attention is for")
    return str(request.param)


def batch_of(lengths: tuple[int, ...], attended: tuple[int | None, ...] | None = None) -> PackedBatch:
    seen = attended or (None,) * len(lengths)
    return PackedBatch.of(
        [TokenSequence(np.zeros(n, np.int64), attended=keys) for n, keys in zip(lengths, seen, strict=True)]
    )


def draw(batch: PackedBatch, heads: int = 4, kv_heads: int = 4, dims: int = 16, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    tokens = len(batch.input_ids)
    return [torch.randn(tokens, n, dims, generator=generator) * 1.5 for n in (heads, kv_heads, kv_heads)]


def naive(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    batch: PackedBatch,
    *,
    scale: float | None = None,
    causal: bool = False,
    window: tuple[int, int] = (-1, -1),
    bias: Tensor | None = None,
) -> Tensor:
    """Return attention one head and one query at a time in float64; `bias` is (N, L, L) for the longest length L."""
    q, k, v = (x.double() for x in (q, k, v))
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    out = torch.zeros_like(q)
    group = q.shape[1] // k.shape[1]
    start = 0
    for length, keys in zip(batch.lengths, batch.attended or batch.lengths, strict=True):
        for head in range(q.shape[1]):
            rows = slice(start, start + length)
            scores = q[rows, head] @ k[rows, head // group].T * scale
            if bias is not None:
                scores = scores + bias[head, :length, :length].double()
            distance = torch.arange(length) - torch.arange(length)[:, None]
            seen = (torch.arange(length) < keys).expand(length, length).clone()
            seen &= (distance >= -window[0]) if window[0] >= 0 else True
            seen &= (distance <= window[1]) if window[1] >= 0 else True
            seen &= (distance <= 0) if causal else True
            weights = scores.masked_fill(~seen, float("-inf")).softmax(-1).nan_to_num(0)
            out[rows, head] = weights @ v[rows, head // group]
        start += length
    return out.flatten(1)


def assert_close(ours: Tensor, expected: Tensor, bound: float = 2e-6) -> None:
    assert ours.shape == expected.shape
    assert (ours.double() - expected).abs().max() <= bound * max(1.0, expected.abs().max().item())


@pytest.mark.parametrize("order", [LENGTHS, LENGTHS[::-1], (7, 40, 7, 1, 150, 7)])
@pytest.mark.parametrize("scale", [None, 0.5])
def test_each_token_mixes_its_own_sequence(order: tuple[int, ...], scale: float | None) -> None:
    batch = batch_of(order)
    q, k, v = draw(batch)
    assert_close(attention(q, k, v, batch, scale=scale), naive(q, k, v, batch, scale=scale))


@pytest.mark.parametrize("kv_heads", [1, 2])
def test_groups_of_queries_share_keys(kv_heads: int) -> None:
    batch = batch_of(LENGTHS)
    q, k, v = draw(batch, kv_heads=kv_heads)
    assert_close(attention(q, k, v, batch), naive(q, k, v, batch))
    assert_close(attention(q, k, v, batch, causal=True), naive(q, k, v, batch, causal=True))


def test_causal_attention_sees_nothing_later() -> None:
    batch = batch_of(LENGTHS)
    q, k, v = draw(batch)
    assert_close(attention(q, k, v, batch, causal=True), naive(q, k, v, batch, causal=True))


@pytest.mark.parametrize("window", [(0, 0), (1, 1), (3, 9), (64, 64), (5, -1), (-1, 5), (149, 149), (148, 148)])
@pytest.mark.parametrize("causal", [False, True])
def test_a_window_bounds_what_is_seen(window: tuple[int, int], causal: bool) -> None:
    batch = batch_of((1, 3, 127, 128, 129, 129, 300))
    q, k, v = draw(batch, heads=2, kv_heads=2)
    ours = attention(q, k, v, batch, window=window, causal=causal)
    assert_close(ours, naive(q, k, v, batch, window=window, causal=causal))


@pytest.mark.parametrize("options", [{}, {"causal": True}, {"window": (4, 4)}, {"window": (40, 40)}])
def test_keys_past_the_attended_prefix_are_unseen(options: dict[str, object]) -> None:
    batch = batch_of((8, 8, 8, 32, 32, 200), (8, 5, None, 9, 9, 30))
    q, k, v = draw(batch, kv_heads=2)
    # Under (4, 4) the late tokens of the last sequence see no key at all: theirs is the zero vector.
    assert_close(attention(q, k, v, batch, **options), naive(q, k, v, batch, **options))  # type: ignore[arg-type]


@pytest.mark.parametrize("window", [(-1, -1), (3, 20)])
@pytest.mark.parametrize("attended", [None, (1, 2, 3, 7, 7, 30, 40, 99)])
def test_a_bias_is_added_to_the_scaled_scores(window: tuple[int, int], attended: tuple[int, ...] | None) -> None:
    batch = batch_of(LENGTHS, attended)
    q, k, v = draw(batch)
    table = torch.randn(4, 150, 150, generator=torch.Generator().manual_seed(1)) * 2
    shapes = []

    def bias(run: Run, queries: Tensor, keys: Tensor) -> Tensor:
        shapes.append((run.count, queries.shape, keys.shape))
        return table[None, :, : run.length, : run.attended]

    ours = attention(q, k, v, batch, scale=0.3, window=window, bias=bias)
    assert_close(ours, naive(q, k, v, batch, scale=0.3, window=window, bias=table))
    assert all(queries[:2] == keys[:2] == (count, 4) for count, queries, keys in shapes)


@pytest.mark.parametrize("window", [(-1, -1), (3, 20)])
@pytest.mark.parametrize("attended", [None, (1, 2, 3, 7, 7, 30, 40, 99)])
@pytest.mark.parametrize("longest", [150, 300])
def test_a_bias_by_distance(window: tuple[int, int], attended: tuple[int, ...] | None, longest: int) -> None:
    batch = batch_of(LENGTHS, attended)
    q, k, v = draw(batch, kv_heads=2)
    biases = torch.randn(4, 2 * longest - 1, generator=torch.Generator().manual_seed(1)) * 2
    places = torch.arange(150)
    table = biases[:, places[:, None] - places + longest - 1]
    bias = DistanceBias.of(biases)
    ours = attention(q, k, v, batch, scale=0.3, window=window, bias=bias)
    assert_close(ours, naive(q, k, v, batch, scale=0.3, window=window, bias=table))
    half = attention(*(x.bfloat16() for x in (q, k, v)), batch, scale=0.3, window=window, bias=bias)
    seen = ours.abs().sum(1) > 0
    assert torch.cosine_similarity(half.double(), ours.double())[seen].min() >= 0.999


def test_a_bias_may_depend_on_queries_and_keys_in_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = batch_of((20,) * 7)
    q, k, v = draw(batch)
    counts = []

    def bias(run: Run, queries: Tensor, keys: Tensor) -> Tensor:
        counts.append(run.count)
        return queries @ keys.mT  # as if the scale were larger by one

    whole = attention(q, k, v, batch, scale=0.25, bias=bias)
    monkeypatch.setattr(module, "_BIASED_SCORES", 3 * 4 * 20 * 20)
    parts = attention(q, k, v, batch, scale=0.25, bias=bias)
    assert counts == [7, 3, 3, 1]
    assert_close(whole, naive(q, k, v, batch, scale=1.25))
    assert_close(parts, naive(q, k, v, batch, scale=1.25))


BIASES: list[Bias | None] = [None, lambda run, q, k: q.new_zeros(1, 1, run.length, run.attended)]


@pytest.mark.parametrize("bias", BIASES)
@pytest.mark.parametrize("dims", [16, 48])
def test_bfloat16_stays_close(bias: Bias | None, dims: int) -> None:
    batch = batch_of((5, 63, 64, 64, 64, 150), (5, 63, 64, 64, 40, 150))
    q, k, v = draw(batch, dims=dims)
    expected = naive(q, k, v, batch)
    ours = attention(*(x.bfloat16() for x in (q, k, v)), batch, bias=bias)
    assert ours.dtype == torch.bfloat16
    assert torch.cosine_similarity(ours.double(), expected).min() >= 0.999


def test_the_same_sequence_alone_and_in_a_batch() -> None:
    batch = batch_of(LENGTHS)
    q, k, v = draw(batch)
    together = attention(q, k, v, batch)
    start = 0
    for length in LENGTHS:
        rows = slice(start, start + length)
        alone = attention(q[rows], k[rows], v[rows], batch_of((length,)))
        assert (together[rows] - alone).abs().max() <= 1e-6
        start += length


@pytest.mark.parametrize("window", [(-1, -1), (3, 4)])
def test_filler_is_not_attended_to_and_comes_out_as_zeros(window: tuple[int, int]) -> None:
    batch = batch_of((7, 7, 40)).filled(60)
    q, k, v = draw(batch)
    ours = attention(q, k, v, batch, window=window)
    assert_close(ours[:54], naive(q, k, v, batch, window=window)[:54])
    assert not ours[54:].any()


def test_what_is_not_finite_stays_in_its_own_sequence() -> None:
    batch = batch_of((5, 6, 7))
    q, k, v = draw(batch)
    for x in (q, k, v):
        x[5:11] = float("nan")
    finite = attention(q, k, v, batch).isfinite().all(-1)
    assert finite.tolist() == [True] * 5 + [False] * 6 + [True] * 7


def test_kernel_names_tell_what_runs(kernel: str) -> None:
    assert module.kernel_name(torch.device("cpu"), torch.float32, 64) == kernel
    assert module.varlen_kernel(torch.device("cpu"), torch.bfloat16, 64) is None


@needs_gpu
@pytest.mark.parametrize("dims", [32, 64, 128])
@pytest.mark.parametrize("lengths", [LENGTHS, (1, 40, 40, 100, 100, 150, 700, 700)])
@pytest.mark.parametrize(
    "options", [{}, {"causal": True}, {"window": (9, 9)}, {"kv_heads": 2}, {"attended": (1, 2, 3, 7, 7, 30, 40, 99)}]
)
def test_the_varlen_kernels_agree(options: dict[str, object], lengths: tuple[int, ...], dims: int) -> None:
    """Short sequences go through our own kernel, unless heads are large, and long ones through a library's."""
    options = dict(options)
    heads = {"kv_heads": options.pop("kv_heads", 4)}
    host = batch_of(lengths, options.pop("attended", None))  # type: ignore[arg-type]
    q, k, v = draw(host, dims=dims, **heads)  # type: ignore[arg-type]
    device = PackedBatch.of(host.sequences, "cuda")
    ours = attention(*(x.cuda().bfloat16() for x in (q, k, v)), device, **options)  # type: ignore[arg-type]
    expected = naive(*(x.bfloat16() for x in (q, k, v)), host, **options)  # type: ignore[arg-type]
    assert torch.cosine_similarity(ours.cpu().double(), expected).min() >= 0.9995
