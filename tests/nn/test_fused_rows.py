"""The Triton kernels against torch's operations: interpreted here, compiled on a GPU."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from support.gpu import NEEDS_GPU, needs_gpu
from support.interpreted import interpret, needs_triton
from tercet.nn import fused_rows
from tercet.nn.norms import LayerNorm, RMSNorm
from tercet.nn.rotary import rotate

ACTIVATIONS = {"gelu": F.gelu, "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"), "silu": F.silu}


def check(device: str, dtype: torch.dtype, bound: float) -> None:
    """Compare every kernel with torch in float64."""
    draw = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=draw).to(device, dtype)

    def close(ours: torch.Tensor, exact: torch.Tensor) -> None:
        assert ours.dtype == dtype and ours.shape == exact.shape and ours.is_contiguous()
        error = ((ours.double() - exact).abs() / exact.abs().clamp(min=1)).max().item()
        assert error <= bound, error

    ids, places, kinds = torch.tensor([[6, 0, 3], [0, 1, 0], [1, 0, 1]], device=device)
    for width in (48, 1000):
        words, positions, types = drawn(7, width), drawn(5, width), drawn(2, width)
        exact = words[ids].double()
        close(fused_rows.embed(ids, words, None, None), exact)
        exact = exact + positions[places + 2].double() + types[kinds].double()
        close(fused_rows.embed(ids, words, (places, positions[2:]), (kinds, types)), exact)
    for width in (48, 384, 1000):
        x, y, w, b = drawn(5, width), drawn(5, width), drawn(width), drawn(width)
        for residual, bias in ((None, None), (y, b), (y, None), (None, b)):
            total = x.double() if residual is None else x.double() + residual.double()
            exact = F.layer_norm(total, (width,), w.double(), None if bias is None else bias.double(), 1e-5)
            close(fused_rows.layer_norm(x, residual, w, bias, 1e-5), exact)
        close(fused_rows.rms_norm(x, w, 1e-6, 0.0), F.rms_norm(x.double(), (width,), w.double(), 1e-6))
    for d, turned in ((16, 16), (16, 8), (24, 24), (128, 128)):
        key = drawn(5, 7, d).split((3, 2, 2), 1)[1]
        w, turns = drawn(d), torch.cat([drawn(5, 1, turned // 2)] * 2, -1)
        exact = F.rms_norm(key.double(), (d,), w.double() + 1, 1e-6)
        close(fused_rows.rms_norm(key, w, 1e-6, 1.0), exact)
        cos, sin = turns.cos(), turns.sin()
        close(fused_rows.rotate(key, cos, sin), rotate(key.double(), (cos.double(), sin.double())))
    for width in (48, 1100):
        both = drawn(5, 2 * width)
        first, second = both.double().chunk(2, -1)
        for name, act in ACTIVATIONS.items():
            close(fused_rows.gate(both, name, True), act(first) * second)  # type: ignore[arg-type]
            close(fused_rows.gate(both, name, False), act(second) * first)  # type: ignore[arg-type]
    assert fused_rows.gate(drawn(2, 4), "relu", True) is None


@needs_triton
def test_interpreted_kernels_agree() -> None:
    interpret("import torch; from nn.test_fused_rows import check; check('cpu', torch.float32, 2e-6)")


@needs_gpu
@pytest.mark.parametrize(("dtype", "bound"), [(torch.bfloat16, 1.1 * 2**-8), (torch.float16, 1.1 * 2**-11)])
def test_compiled_kernels_agree(dtype: torch.dtype, bound: float) -> None:
    check("cuda", dtype, bound)


def test_where_kernels_do_not_run_that_is_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As on a machine without a C compiler, or, here, without a device."""

    def fail(*of: object) -> None:
        raise RuntimeError("Failed to find C compiler")

    monkeypatch.setattr(fused_rows, "find_spec", lambda name: object())
    monkeypatch.setattr(fused_rows, "gate", fail)
    monkeypatch.setattr(torch, "zeros", lambda *shape, **options: None)
    fused_rows.has_triton.cache_clear()
    try:
        assert not fused_rows.has_triton() and not fused_rows.has_triton()
        assert caplog.text.count("Failed to find C compiler") == 1
    finally:
        fused_rows.has_triton.cache_clear()


def test_nothing_is_fused_on_a_cpu() -> None:
    assert not fused_rows.fuses(torch.zeros(1, dtype=torch.bfloat16))


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=NEEDS_GPU)])
@pytest.mark.parametrize("kind", [LayerNorm, RMSNorm])
def test_a_norm_of_a_sum_is_the_norm_of_the_sum(kind: type[LayerNorm | RMSNorm], device: str) -> None:
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    norm = kind(32, 1e-5).to(device, dtype)
    torch.nn.init.normal_(norm.weight)
    x, y = torch.randn(2, 6, 32, device=device, dtype=dtype)

    def product(residual: torch.Tensor | None = None) -> torch.Tensor:
        return y if residual is None else y + residual

    assert torch.allclose(norm.of_sum(x, product), norm(x + y), rtol=2e-2, atol=2e-2)
    assert not torch.allclose(norm.of_sum(x, product), norm(y), rtol=2e-2, atol=2e-2)
