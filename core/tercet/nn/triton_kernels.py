"""The kernels of `fused_rows.py` and `varlen.py`, in Triton's language. Only imported where Triton is there."""

# Triton reads types off the arguments themselves, and `tl` has operators that no checker knows.
# mypy: ignore-errors
# ruff: noqa: D103, N803

import triton
import triton.language as tl


@triton.jit
def embed(
    ids, words, positions, places, types, kinds, out, width,
    PLACED: tl.constexpr, TYPED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    at = tl.arange(0, BLOCK)
    inside = at < width
    token = tl.program_id(0).to(tl.int64)
    value = tl.load(words + tl.load(ids + token) * width + at, mask=inside, other=0.0).to(tl.float32)
    if PLACED:
        place = tl.load(positions + token)
        value += tl.load(places + place * width + at, mask=inside, other=0.0).to(tl.float32)
    if TYPED:
        kind = tl.load(types + token)
        value += tl.load(kinds + kind * width + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + token * width + at, value.to(out.dtype.element_ty), mask=inside)


@triton.jit
def layer_norm(
    x, residual, weight, bias, out, width, eps, ADDS: tl.constexpr, SHIFTS: tl.constexpr, BLOCK: tl.constexpr
):
    at = tl.arange(0, BLOCK)
    inside = at < width
    row = tl.program_id(0).to(tl.int64) * width + at
    value = tl.load(x + row, mask=inside, other=0.0).to(tl.float32)
    if ADDS:
        value += tl.load(residual + row, mask=inside, other=0.0).to(tl.float32)
    centred = tl.where(inside, value - tl.sum(value, 0) / width, 0.0)
    scale = tl.rsqrt(tl.sum(centred * centred, 0) / width + eps)
    value = centred * scale * tl.load(weight + at, mask=inside, other=0.0).to(tl.float32)
    if SHIFTS:
        value += tl.load(bias + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + row, value.to(out.dtype.element_ty), mask=inside)


@triton.jit
def rms_norm(x, token_stride, head_stride, weight, out, heads, width, eps, offset, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    inside = at < width
    place = tl.program_id(0).to(tl.int64)
    source = x + place // heads * token_stride + place % heads * head_stride
    value = tl.load(source + at, mask=inside, other=0.0).to(tl.float32)
    scale = tl.rsqrt(tl.sum(value * value, 0) / width + eps)
    value = value * scale * (tl.load(weight + at, mask=inside, other=0.0).to(tl.float32) + offset)
    tl.store(out + place * width + at, value.to(out.dtype.element_ty), mask=inside)


@triton.jit
def rotate(x, token_stride, head_stride, cos, sin, out, heads, width, turned, HEADS: tl.constexpr, WIDTH: tl.constexpr):
    token = tl.program_id(0).to(tl.int64)
    head = tl.arange(0, HEADS)[:, None]
    at = tl.arange(0, WIDTH)[None, :]
    inside = (head < heads) & (at < width)
    half = turned // 2
    other = tl.where(at < half, at + half, tl.where(at < turned, at - half, at))
    source = x + token * token_stride + head * head_stride
    value = tl.load(source + at, mask=inside, other=0.0).to(tl.float32)
    partner = tl.load(source + other, mask=inside, other=0.0).to(tl.float32)
    angle = token * turned + at
    c = tl.load(cos + angle, mask=at < turned, other=1.0).to(tl.float32)
    s = tl.load(sin + angle, mask=at < turned, other=0.0).to(tl.float32)
    value = value * c + tl.where(at < half, -partner, partner) * s
    tl.store(out + (token * heads + head) * width + at, value.to(out.dtype.element_ty), mask=inside)


@triton.jit
def gate(x, out, width, gate_at, up_at, ACT: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = at < width
    source = x + row * 2 * width + at
    g = tl.load(source + gate_at, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(source + up_at, mask=inside, other=0.0).to(tl.float32)
    if ACT == 0:
        g = 0.5 * g * (1.0 + tl.erf(g * 0.7071067811865476))
    elif ACT == 1:
        g = g * tl.sigmoid(1.5957691216057308 * (g + 0.044715 * g * g * g))  # as tanh(u) = 2 σ(2 u) − 1
    else:
        g = g * tl.sigmoid(g)
    tl.store(out + row * width + at, (g * up).to(out.dtype.element_ty), mask=inside)


@triton.jit
def attention(
    q, k, v, out, blocks, starts, key_counts, scale,
    q_token, q_head, k_token, k_head, v_token, v_head, heads, group, left, right,
    WIDTH: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr, WINDOWED: tl.constexpr,
):  # fmt: skip
    """One block of queries of one head of one sequence, over its keys with a running maximum; arXiv:2205.14135."""
    sequence = tl.load(blocks + 2 * tl.program_id(0))
    if sequence < 0:
        return
    first = tl.load(blocks + 2 * tl.program_id(0) + 1)
    head = tl.program_id(1)
    start = tl.load(starts + sequence).to(tl.int64)
    length = (tl.load(starts + sequence + 1) - start).to(tl.int32)
    keys = tl.load(key_counts + sequence)
    rows = first + tl.arange(0, QUERIES)
    dims = tl.arange(0, WIDTH)[None, :]
    real = rows[:, None] < length
    qs = tl.load(q + (start + rows)[:, None] * q_token + head * q_head + dims, mask=real, other=0.0)
    low = 0
    high = keys
    if WINDOWED:
        low = tl.maximum(0, first - left) // KEYS * KEYS
        high = tl.minimum(keys, first + QUERIES + right)
    most = tl.full([QUERIES], -1.0e38, tl.float32)
    total = tl.zeros([QUERIES], tl.float32)
    mixed = tl.zeros([QUERIES, WIDTH], tl.float32)
    for at in range(low, high, KEYS):
        columns = at + tl.arange(0, KEYS)
        there = columns[:, None] < keys
        places = (start + columns)[:, None]
        ks = tl.load(k + places * k_token + head // group * k_head + dims, mask=there, other=0.0)
        seen = columns[None, :] < keys
        if WINDOWED:
            distance = columns[None, :] - rows[:, None]
            seen = seen & (distance >= -left) & (distance <= right)
        scores = tl.where(seen, tl.dot(qs, tl.trans(ks)) * scale, -1.0e38)
        new = tl.maximum(most, tl.max(scores, 1))
        weights = tl.exp2(scores - new[:, None])
        shrink = tl.exp2(most - new)
        vs = tl.load(v + places * v_token + head // group * v_head + dims, mask=there, other=0.0)
        mixed = mixed * shrink[:, None] + tl.dot(weights.to(vs.dtype), vs)
        total = total * shrink + tl.sum(weights, 1)
        most = new
    target = out + ((start + rows)[:, None] * heads + head) * WIDTH + dims
    tl.store(target, (mixed / total[:, None]).to(out.dtype.element_ty), mask=real)
