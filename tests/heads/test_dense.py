"""Dense vectors equal sentence-transformers' for every pooling and every module after it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import LayerNorm, Pooling

from support.checkpoints import TEXTS, encode, redraw, rewrite, save_checkpoint
from tercet.checkpoints.open import open_checkpoint

POOLINGS = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
Modules = Callable[[int], list[torch.nn.Module]]
PIPELINES: dict[str, Modules] = {
    "bare": lambda width: [],
    "normalised": lambda width: [Normalize()],
    "dense": lambda width: [Dense(width, 20), Normalize()],
    "dense without bias or activation": lambda width: [Dense(width, 24, bias=False, activation_function=None)],
    "norm, two layers": lambda width: [
        LayerNorm(width),
        Dense(width, 48, activation_function=torch.nn.GELU()),
        Dense(48, 16, activation_function=torch.nn.Identity()),
        Normalize(),
    ],
    "residual": lambda width: [Dense(width, width, use_residual=True), Dense(width, 8, use_residual=True)],
}


def save_pipeline(root: Path, pooling: Any, pipeline: str, *, prompts: Any = None, **options: Any) -> Path:
    """Save backbone, pooling and what follows as sentence-transformers does; return the directory."""
    save_checkpoint(root / "backbone")
    pool = Pooling(32, pooling, **options)
    width = pool.get_embedding_dimension()
    model = SentenceTransformer(
        modules=[Transformer(str(root / "backbone")), pool, *PIPELINES[pipeline](width)], device="cpu", prompts=prompts
    )
    redraw(model)
    model.save_pretrained(str(root / "model"), create_model_card=False)
    return root / "model"


def assert_parity(directory: Path, texts: Sequence[str] = TEXTS, *, is_query: bool = False) -> None:
    model = SentenceTransformer(str(directory), device="cpu")
    theirs = (model.encode_query if is_query else model.encode_document)(list(texts), batch_size=1)
    ours = np.stack(encode(directory, texts, "dense", is_query=is_query)["dense"])
    assert ours.shape == theirs.shape
    assert theirs.std() > 0.01
    assert np.abs(ours - theirs).max() <= 1e-5 * max(1, np.abs(theirs).max())


@pytest.mark.parametrize("pooling", [*POOLINGS, ("mean", "cls"), ("max", "weightedmean", "lasttoken")], ids=str)
def test_every_pooling(pooling: Any, tmp_path: Path) -> None:
    assert_parity(save_pipeline(tmp_path, pooling, "normalised"))


@pytest.mark.slow
@pytest.mark.parametrize("pipeline", PIPELINES)
def test_every_module_after_pooling(pipeline: str, tmp_path: Path) -> None:
    directory = save_pipeline(tmp_path, "mean", pipeline)
    assert_parity(directory)
    spec = open_checkpoint(str(directory)).spec
    assert spec.dims["dense"] == len(encode(directory, ["hello"], "dense")["dense"][0])


@pytest.mark.slow
@pytest.mark.parametrize("pooling", ["mean", "cls", "max", "weightedmean", "lasttoken"])
@pytest.mark.parametrize("is_query", [True, False])
def test_prompts_stand_before_the_text_and_may_be_left_out_of_pooling(
    pooling: str, is_query: bool, tmp_path: Path
) -> None:
    prompts = {"query": "quick question: ", "document": "lazy passage, "}
    directory = save_pipeline(tmp_path, pooling, "normalised", prompts=prompts, include_prompt=False)
    assert_parity(directory, is_query=is_query)


def test_the_sides_differ_by_their_prompts(tmp_path: Path) -> None:
    directory = save_pipeline(tmp_path, "mean", "bare", prompts={"query": "find: ", "passage": "read: ", "extra": "x "})

    def vector(text: str, **settings: Any) -> Any:
        return encode(directory, [text], "dense", **settings)["dense"][0]

    bare = vector("find: hello", prompt="")
    assert np.array_equal(vector("hello", is_query=True), bare)
    assert np.array_equal(vector("hello"), vector("read: hello", prompt=""))  # "document" is absent, "passage" is not
    assert np.array_equal(vector("hello", prompt="extra"), vector("x hello", prompt=""))
    assert np.array_equal(vector("hello", prompt="find: "), bare)
    assert not np.allclose(vector("hello", prompt=""), bare)


def test_the_old_layout_reads_the_same(tmp_path: Path) -> None:
    """Flags instead of names, old module paths, the length beside the Transformer, which has a folder of its own."""
    directory = save_pipeline(tmp_path, ("cls", "mean"), "dense")
    expected = np.stack(encode(directory, TEXTS, "dense")["dense"])
    folder = directory / "0_Transformer"
    folder.mkdir()
    for file in list(directory.iterdir()):
        if file.is_file() and file.name not in ("modules.json", "config_sentence_transformers.json"):
            file.rename(folder / file.name)
    kinds = {0: ("0_Transformer", "Transformer"), 1: ("1_Pooling", "Pooling"), 2: ("2_Dense", "Dense")}
    kinds[3] = ("3_Normalize", "Normalize")
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in kinds.items()
    ]
    (directory / "modules.json").write_text(json.dumps(modules))
    flags = {
        f"pooling_mode_{name}": name in ("cls_token", "mean_tokens")
        for name in ("cls_token", "mean_tokens", "max_tokens")
    }
    pooling = {"word_embedding_dimension": 32, **flags}
    (directory / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 40, "do_lower_case": True}))
    assert_parity(directory)
    assert np.array_equal(np.stack(encode(directory, TEXTS[:4], "dense")["dense"]), expected[:4])
    assert open_checkpoint(str(directory)).spec.max_length == 40


@pytest.mark.parametrize("architecture", ["BertModel", "Qwen3ForCausalLM"])
def test_a_bare_checkpoint_is_pooled_as_its_architecture_asks(architecture: str, tmp_path: Path) -> None:
    save_checkpoint(tmp_path, architecture, kind="wordpiece" if architecture == "BertModel" else "qwen")
    assert_parity(tmp_path)


def test_lower_case_is_applied_before_the_tokeniser(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, kind="unigram", pad_token_id=1)
    upper = encode(tmp_path, ["THE QUICK ΣΑΣ"], "dense")["dense"][0]
    (tmp_path / "sentence_bert_config.json").write_text(json.dumps({"do_lower_case": True}))
    rewrite(tmp_path / "config.json")
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    ]
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps({"embedding_dimension": 32}))
    assert not np.allclose(encode(tmp_path, ["THE QUICK ΣΑΣ"], "dense")["dense"][0], upper)
    assert_parity(tmp_path, ["THE QUICK ΣΑΣ", "Brown FOX"])
