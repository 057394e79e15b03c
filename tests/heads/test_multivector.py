"""Token vectors equal sentence-transformers' MultiVectorEncoder for each layout that late interaction is saved in."""

from __future__ import annotations

import json
import string
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import MultiVectorEncoder, SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask

from support.checkpoints import TEXTS, encode, redraw, rewrite, save_checkpoint, with_words
from support.tiny_tokenizers import tiny
from tercet.checkpoints.open import open_checkpoint
from tercet.checkpoints.spec import MultiVectorSpec
from tercet.errors import CheckpointError

MARKERS = ("[unused0]", "[unused1]")


def assert_parity(directory: Path, texts: Sequence[str] = TEXTS) -> None:
    model = MultiVectorEncoder(str(directory), device="cpu")
    for is_query in (True, False):
        run = model.encode_query if is_query else model.encode_document
        theirs = [vectors.numpy() for vectors in run(list(texts), batch_size=1)]
        ours = encode(directory, texts, "multivector", is_query=is_query)["multivector"]
        for mine, reference in zip(ours, theirs, strict=True):
            assert mine.shape == reference.shape
            assert np.abs(mine - reference).max() <= 1e-5


def save_late(root: Path, *, mask: MultiVectorMask | None = None, prompts: Any = None, **knobs: Any) -> Path:
    """Save a late-interaction model as sentence-transformers does; return the directory."""
    save_checkpoint(root / "backbone")
    modules = [
        Transformer(str(root / "backbone"), **knobs),
        Dense(32, 16, bias=False, activation_function=torch.nn.Identity(), module_input_name="token_embeddings"),
        mask or MultiVectorMask(),
        Normalize(module_input_name="token_embeddings"),
    ]
    model = MultiVectorEncoder(modules=modules, device="cpu", prompts=prompts)
    redraw(model)
    model.save_pretrained(str(root / "model"), create_model_card=False)
    return root / "model"


EXPANSIONS: dict[str, Any] = {
    "none": {},
    "lengths": {"query_length": 8, "document_length": 20},
    "fixed": {"query_expansion": {"strategy": "fixed", "attend": False, "length": 16}},
    "fixed, attended": {"query_expansion": {"strategy": "fixed", "attend": True, "length": 16}},
    "at least": {"query_expansion": {"strategy": "min", "attend": False, "length": 12}, "query_length": 30},
    "at least, without limit": {"query_expansion": {"strategy": "min", "attend": True, "length": 12}},
    "by another token": {"query_expansion": {"strategy": "fixed", "attend": True, "length": 16, "token": "[SEP]"}},
}


@pytest.mark.slow
@pytest.mark.parametrize("expansion", EXPANSIONS)
def test_lengths_and_expansion(expansion: str, tmp_path: Path) -> None:
    directory = save_late(tmp_path, prompts={"query": "[Q] ", "document": "[D] "}, **EXPANSIONS[expansion])
    assert_parity(directory)


@pytest.mark.slow
@pytest.mark.parametrize("tasks", [None, ["query", "document"], "query"])
def test_skipped_words(tasks: Any, tmp_path: Path) -> None:
    mask = MultiVectorMask([*string.punctuation, "the", "not one token"], skiplist_tasks=tasks)
    knobs = EXPANSIONS["fixed"]
    assert_parity(save_late(tmp_path, mask=mask, **knobs))


@pytest.mark.slow
@pytest.mark.parametrize("known", [True, False], ids=["markers are tokens", "markers are text"])
@pytest.mark.parametrize("attend", [True, False])
def test_the_layout_of_pylate(known: bool, attend: bool, tmp_path: Path) -> None:
    tokenizer = with_words(tiny("wordpiece"), ["[Q] ", "[D] "]) if known else tiny("wordpiece")
    save_checkpoint(tmp_path / "backbone", tokenizer=tokenizer)
    projection = Dense(32, 16, bias=False, activation_function=torch.nn.Identity())
    SentenceTransformer(modules=[Transformer(str(tmp_path / "backbone")), projection], device="cpu").save_pretrained(
        str(tmp_path / "model"), create_model_card=False
    )
    directory = tmp_path / "model"
    modules = json.loads((directory / "modules.json").read_text())
    modules[1]["type"] = "pylate.models.Dense.Dense"
    (directory / "modules.json").write_text(json.dumps(modules))
    rewrite(directory / "1_Dense" / "config.json", module_input_name=None, module_output_name=None)
    rewrite(
        directory / "config_sentence_transformers.json",
        model_type="ColBERT",
        query_prefix="[Q] ",
        document_prefix="[D] ",
        query_length=14,
        document_length=24,
        attend_to_expansion_tokens=attend,
    )
    assert_parity(directory)
    head = open_checkpoint(str(directory)).spec.heads["multivector"]
    assert isinstance(head, MultiVectorSpec)
    assert (head.query.marker is not None) is known

    rewrite(directory / "config_sentence_transformers.json", do_query_expansion=False, skiplist_words=["the"])
    assert_parity(directory)


def save_stanford(directory: Path, **metadata: Any) -> Path:
    """Save a ColBERT as its authors do."""
    save_checkpoint(directory, tokenizer=with_words(tiny("wordpiece"), MARKERS))
    weights = {f"bert.{name}": tensor for name, tensor in load_file(directory / "model.safetensors").items()}
    generator = torch.Generator().manual_seed(5)
    weights["linear.weight"] = torch.randn(24, 32, generator=generator)
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    rewrite(directory / "config.json", architectures=["HF_ColBERT"])
    rewrite(directory / "artifact.metadata", dim=24, **metadata)
    return directory


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"query_maxlen": 12, "doc_maxlen": 20, "attend_to_mask_tokens": True},
        {"mask_punctuation": False, "query_token_id": "[unused1]", "doc_token_id": "[unused0]"},
    ],
    ids=str,
)
def test_the_layout_of_stanford(metadata: dict[str, Any], tmp_path: Path) -> None:
    assert_parity(save_stanford(tmp_path / "colbert", **metadata))


def test_stanford_markers_stand_second_and_masks_fill_up(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(str(save_stanford(tmp_path, query_maxlen=9, doc_maxlen=20)))
    from tercet.checkpoints.checkpoint import EncodeSettings
    from tercet.nn.batch import TokenSequence
    from tercet.types import Item

    vocabulary = json.loads((tmp_path / "tokenizer.json").read_text())["model"]["vocab"]
    (query,) = checkpoint.encode([Item("hello world")], EncodeSettings(("multivector",), is_query=True))
    (document,) = checkpoint.encode([Item("hello, world")], EncodeSettings(("multivector",)))
    assert isinstance(query, TokenSequence) and isinstance(document, TokenSequence)
    words = ["[CLS]", "[unused0]", "hello", "world", "[SEP]", *["[MASK]"] * 4]
    assert query.input_ids.tolist() == [vocabulary[word] for word in words]
    assert query.attended == 5 and query.kept is None
    words = ["[CLS]", "[unused1]", "hello", ",", "world", "[SEP]"]
    assert document.input_ids.tolist() == [vocabulary[word] for word in words]
    assert document.kept is not None and document.kept.tolist() == [True, True, True, False, True, True]


def test_a_marker_that_the_vocabulary_lacks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"query_token_id.*\[Q\]"):
        open_checkpoint(str(save_stanford(tmp_path, query_token_id="[Q]")))


def test_a_dimension_other_than_the_stored_one_is_refused(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(str(save_stanford(tmp_path)))
    rewrite(tmp_path / "artifact.metadata", dim=25)
    assert checkpoint.spec.dims == {"multivector": 24}
    with pytest.raises(CheckpointError, match="24"):
        open_checkpoint(str(tmp_path)).load(torch.device("cpu"), torch.float32)


def test_an_encoder_without_a_head_gives_its_normalised_states(tmp_path: Path) -> None:
    save_checkpoint(tmp_path)
    model = SentenceTransformer(str(tmp_path), device="cpu")
    theirs = model.encode(TEXTS, output_value="token_embeddings", batch_size=1)
    ours = encode(tmp_path, TEXTS, "multivector")["multivector"]
    for mine, states in zip(ours, theirs, strict=True):
        assert np.abs(mine - torch.nn.functional.normalize(states, dim=-1).numpy()).max() <= 1e-5
    spec = open_checkpoint(str(tmp_path)).spec
    head = spec.heads["multivector"]
    assert isinstance(head, MultiVectorSpec) and not head.trained
    assert any("token states" in note for note in spec.notes)
