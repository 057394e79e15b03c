"""The bundled MiniLM as an ONNX graph, and onnxruntime driven by hand over it: the strongest exact peer that we know.

The graph is exported with plain attention by torch's older exporter, since onnxruntime's optimiser knows that pattern
and fuses it; of the ways tried (newer exporter, SDPA, without the optimiser) this was the fastest.
"""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from cache import built, bundled
from numpy.typing import NDArray

BATCH = 32
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
OUTPUT = "last_hidden_state"
_TOKENIZER = ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


def exported() -> Path:
    """Return a folder with `model.onnx`, float32, and the tokeniser's files; exported on first use."""
    return built("minilm-onnx", _export)


def _export(folder: Path) -> None:
    import torch
    from onnxruntime.transformers.optimizer import optimize_model
    from transformers import AutoModel

    model = AutoModel.from_pretrained(str(bundled()), attn_implementation="eager").eval()
    example = torch.ones(2, 16, dtype=torch.long)
    axes = {name: {0: "batch", 1: "tokens"} for name in (*INPUTS, OUTPUT)}
    plain = folder / "plain.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the tracer and the older exporter
        torch.onnx.export(
            _States(model), (example, example, example), str(plain), dynamo=False, opset_version=17,
            input_names=list(INPUTS), output_names=[OUTPUT], dynamic_axes=axes,
        )  # fmt: skip
    heads, hidden = model.config.num_attention_heads, model.config.hidden_size
    fused = optimize_model(str(plain), model_type="bert", num_heads=heads, hidden_size=hidden, opt_level=0)
    fused.save_model_to_file(str(folder / "model.onnx"))
    plain.unlink()
    for name in _TOKENIZER:
        shutil.copy(bundled() / name, folder)


def _States(model: Any) -> Any:  # noqa: N802 - a module, made where torch is at hand
    """Return the model as a module from its three inputs to its last hidden states."""
    import torch

    class States(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, ids: Any, mask: Any, types: Any) -> Any:
            return self.model(input_ids=ids, attention_mask=mask, token_type_ids=types).last_hidden_state

    return States()


def rounded() -> Path:
    """Return a folder with the same graph in int8, weights by row: of four ways tried, the fastest."""
    return built("minilm-onnx-int8", _quantize)


def _quantize(folder: Path) -> None:
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    # Nodes that its optimiser fused are of no type that onnx knows.
    types = {"MatMulConstBOnly": True, "DefaultTensorType": onnx.TensorProto.FLOAT}
    source = exported()
    quantize_dynamic(
        source / "model.onnx",
        folder / "model.onnx",
        per_channel=True,
        weight_type=QuantType.QInt8,
        extra_options=types,
    )
    for name in _TOKENIZER:
        shutil.copy(source / name, folder)


class OnnxRuntime:
    """onnxruntime on all cores: batches sorted by length, padded to their longest, mean pooling in numpy."""

    folder = staticmethod(exported)

    def load(self) -> None:
        import onnxruntime
        from tokenizers import Tokenizer

        folder = self.folder()
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(256)  # tokens, as the model's own settings say
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = len(os.sched_getaffinity(0))
        self.session = onnxruntime.InferenceSession(folder / "model.onnx", settings, ["CPUExecutionProvider"])
        self.run(["one"])

    def run(self, texts: Sequence[str]) -> NDArray[np.float32]:
        encoded = self.tokenizer.encode_batch_fast(list(texts))
        return in_batches([encoding.ids for encoding in encoded], BATCH, self._forward)

    def _forward(self, ids: NDArray[np.int64], mask: NDArray[np.int64]) -> NDArray[np.float32]:
        inputs = dict(zip(INPUTS, (ids, mask, np.zeros_like(ids)), strict=True))
        states: NDArray[np.float32] = self.session.run([OUTPUT], inputs)[0]  # (B, L, H)
        shown = mask[..., None].astype(np.float32)
        rows: NDArray[np.float32] = (states * shown).sum(1) / shown.sum(1)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        return rows


class OnnxRuntimeInt8(OnnxRuntime):
    """The same in int8, rounded by tensor as it runs."""

    folder = staticmethod(rounded)


def in_batches(
    sequences: Sequence[Sequence[int]],
    size: int,
    forward: Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.float32]],
) -> NDArray[np.float32]:
    """Return a row for each sequence, in order, computed in padded batches of like length, the longest first.

    Args:
        sequences: token ids.
        size: sequences a batch.
        forward: (ids, mask), both (B, L) and 0 where there is no token, to (B, D).
    """
    order = sorted(range(len(sequences)), key=lambda i: -len(sequences[i]))
    batches = [order[first : first + size] for first in range(0, len(order), size)]
    rows = np.concatenate([forward(*_padded([sequences[i] for i in batch])) for batch in batches])
    restored = np.empty_like(rows)
    restored[order] = rows
    return restored


def _padded(sequences: Sequence[Sequence[int]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    ids = np.zeros((len(sequences), max(map(len, sequences))), np.int64)
    mask = np.zeros_like(ids)
    for row, shown, sequence in zip(ids, mask, sequences, strict=True):
        row[: len(sequence)], shown[: len(sequence)] = sequence, 1
    return ids, mask
