"""Peers whose packages ask for other versions than ours: an environment of their own, made on first use.

fastembed and the ONNX backend of sentence-transformers (through optimum) both want an older huggingface-hub.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from cache import CACHE, built, bundled

ENVIRONMENT = Path(__file__).parents[1] / ".venv-onnx"
PYTHON = ENVIRONMENT / "bin" / "python"
PACKAGES = ("torch==2.13.0", "sentence-transformers[onnx]==5.7.0", "fastembed==0.9.1")
FOLDER = "minilm-sentence-transformers-onnx"


def install() -> None:
    """Make the environment, once, and in it the export of sentence-transformers' own."""
    if not (ENVIRONMENT / ".made").exists():
        subprocess.run([sys.executable, "-m", "venv", str(ENVIRONMENT)], check=True)
        subprocess.run([str(PYTHON), "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
        (ENVIRONMENT / ".made").touch()
    built(FOLDER, lambda folder: _export(bundled(), folder))


def _export(model: Path, folder: Path) -> None:
    code = (
        "import sys; from sentence_transformers import SentenceTransformer as S;"
        "model = S(sys.argv[1], backend='onnx', device='cpu', model_kwargs={'export': True});"
        "model.save_pretrained(sys.argv[2], create_model_card=False)"
    )
    subprocess.run([str(PYTHON), "-W", "ignore", "-c", code, str(model), str(folder)], check=True)


class SentenceTransformersOnnx:
    """sentence-transformers' ONNX backend with its defaults: batches of 32, sorted by length."""

    def load(self) -> None:
        from sentence_transformers import SentenceTransformer

        self.model = SentenceTransformer(
            str(CACHE / FOLDER),
            backend="onnx",
            device="cpu",
            model_kwargs={"provider": "CPUExecutionProvider", "file_name": "onnx/model.onnx"},
        )
        self.run(["one"])

    def run(self, texts: Sequence[str]) -> Any:
        return self.model.encode(list(texts), batch_size=32)


class Fastembed:
    """fastembed over the graph of `minilm_graph`, by its path for custom models, in batches of 32."""

    def load(self) -> None:
        from fastembed import TextEmbedding
        from fastembed.common.model_description import ModelSource, PoolingType

        name = "all-MiniLM-L6-v2-exported"
        TextEmbedding.add_custom_model(
            name, PoolingType.MEAN, normalization=True, sources=ModelSource(hf=name), dim=384, model_file="model.onnx"
        )
        self.model = TextEmbedding(name, specific_model_path=str(CACHE / "minilm-onnx"))
        self.run(["one"])

    def run(self, texts: Sequence[str]) -> Any:
        return np.stack(list(self.model.embed(list(texts), batch_size=32)))
