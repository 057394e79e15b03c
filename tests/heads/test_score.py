"""Reranker scores equal sentence-transformers' CrossEncoder, and Qwen3-Reranker's published recipe."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
import torch
from sentence_transformers import CrossEncoder
from sentence_transformers.base.modules import Transformer
from sentence_transformers.cross_encoder.modules import LogitScore
from tokenizers import AddedToken

from support.checkpoints import TEXTS, rewrite, save_checkpoint, score
from support.reference import Reference
from support.tiny_tokenizers import tiny
from tercet.checkpoints.layouts.yes_no import QWEN3
from tercet.checkpoints.open import open_checkpoint
from tercet.errors import InvalidInputError, UnsupportedModelError

QUERY = "Which fox says hello?"
CLASSIFIERS = {
    "BertForSequenceClassification": ("wordpiece", {}),
    "DistilBertForSequenceClassification": ("wordpiece", {}),
    "XLMRobertaForSequenceClassification": ("unigram", {"pad_token_id": 1, "tokens": {"model_max_length": 64}}),
    "ModernBertForSequenceClassification": ("wordpiece", {}),
}


def assert_parity(directory: Path, query: str = QUERY, documents: Sequence[str] = TEXTS, **settings: Any) -> None:
    model = CrossEncoder(str(directory), device="cpu")
    theirs = model.predict([(query, text) for text in documents], batch_size=1).reshape(len(documents), -1)
    ours = score(directory, query, documents, **settings)
    assert ours.shape == theirs.shape
    assert theirs.std() > 1e-3
    assert np.abs(ours - theirs).max() <= 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("labels", [1, 3])
@pytest.mark.parametrize("architecture", CLASSIFIERS)
def test_a_bare_classifier(architecture: str, labels: int, tmp_path: Path) -> None:
    kind, settings = CLASSIFIERS[architecture]
    save_checkpoint(tmp_path, architecture, kind=kind, num_labels=labels, **settings)
    assert_parity(tmp_path)
    spec = open_checkpoint(str(tmp_path)).spec
    assert spec.dims == {"score": labels} and spec.outputs == ()


def test_token_types_are_left_out_where_the_tokeniser_says_so(tmp_path: Path) -> None:
    tokens = {"model_input_names": ["input_ids", "attention_mask"]}
    save_checkpoint(tmp_path, "BertForSequenceClassification", num_labels=1, tokens=tokens)
    assert_parity(tmp_path)


@pytest.mark.parametrize("query", ["", "fox " * 40, "fox " * 200], ids=["empty", "longer than most", "too long"])
def test_pairs_are_cut_as_the_longest_first_rule_says(query: str, tmp_path: Path) -> None:
    save_checkpoint(tmp_path, "BertForSequenceClassification", num_labels=1)
    assert_parity(tmp_path, query)


IDENTITY = "torch.nn.modules.linear.Identity"


@pytest.mark.parametrize(
    "config",
    [
        {"sentence_transformers": {"activation_fn": IDENTITY}},
        {"sbert_ce_default_activation_function": IDENTITY},
        {"sentence_transformers": {"activation_fn": "torch.nn.modules.activation.Tanh"}},
    ],
    ids=str,
)
def test_the_activation_that_the_configuration_names(config: dict[str, Any], tmp_path: Path) -> None:
    save_checkpoint(tmp_path, "BertForSequenceClassification", num_labels=1)
    rewrite(tmp_path / "config.json", **config)
    assert_parity(tmp_path)


def test_the_layout_with_modules_and_a_prompt(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "plain", "BertForSequenceClassification", num_labels=1)
    model = CrossEncoder(
        str(tmp_path / "plain"),
        device="cpu",
        activation_fn=torch.nn.Identity(),
        prompts={"rank": "lazy dog: "},
        default_prompt_name="rank",
    )
    model.save_pretrained(str(tmp_path / "model"), create_model_card=False)
    assert_parity(tmp_path / "model")


def test_an_activation_of_ones_own_is_refused(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, "BertForSequenceClassification", num_labels=1)
    rewrite(tmp_path / "config.json", sbert_ce_default_activation_function="my_code.Cube")
    with pytest.raises(UnsupportedModelError, match=r"my_code\.Cube.*known.*sigmoid"):
        open_checkpoint(str(tmp_path))


# Yes-or-no rerankers

TEMPLATE = """{%- set task = messages[0].content if messages[0].role == "system" else "find what answers" -%}
<|im_start|>system
Judge!<|im_end|>
<|im_start|>user
<Instruct>: {{ task }}
<Query>: {{ messages | selectattr("role", "equalto", "query") | map(attribute="content") | first }}
<Document>: {{ messages | selectattr("role", "equalto", "document") | map(attribute="content") | first }}<|im_end|>
<|im_start|>assistant
"""


def chat_tokenizer() -> tokenizers.Tokenizer:
    """Return a byte-level tokeniser with chat markers and nothing around texts."""
    made = tiny("byte_level")
    made.post_processor = tokenizers.processors.ByteLevel(trim_offsets=False)
    made.add_tokens(["yes", "no"])
    made.add_special_tokens([AddedToken(f"<|im_{place}|>", special=True) for place in ("start", "end")])
    return made


def save_reranker(directory: Path, **tokens: Any) -> Reference:
    settings = {"tokenizer": chat_tokenizer(), "kind": "qwen", "max_position_embeddings": 600}
    return save_checkpoint(directory, "Qwen3ForCausalLM", tokens=tokens, **settings)


@pytest.mark.slow
@pytest.mark.parametrize("instruction", [None, "judge the fox"])
def test_a_bare_reranker_follows_the_published_recipe(instruction: str | None, tmp_path: Path) -> None:
    reference = save_reranker(tmp_path)
    tokenizer = chat_tokenizer()
    yes, no = (tokenizer.token_to_id(word) for word in ("yes", "no"))
    expected = []
    for document in TEXTS:
        task = instruction or QWEN3.instruction
        text = f"{QWEN3.start}{task}\n<Query>: {QUERY}\n<Document>: {document}"
        tail = tokenizer.encode(QWEN3.end).ids
        ids = [*tokenizer.encode(text).ids[: 600 - len(tail)], *tail]
        with torch.inference_mode():
            logits = reference.model(input_ids=torch.tensor([ids])).logits[0, -1]
        expected.append(torch.softmax(logits[[no, yes]], 0)[1].item())
    ours = score(tmp_path, QUERY, TEXTS, instruction=instruction)[:, 0]
    assert np.std(expected) > 1e-3
    assert np.abs(ours - expected).max() <= 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("shared", [True, False], ids=["shared word table", "own output table"])
@pytest.mark.parametrize("answers", [("yes", "no"), ("yes",)], ids=["yes and no", "yes alone"])
def test_a_logit_score_with_a_chat_template(answers: tuple[str, ...], shared: bool, tmp_path: Path) -> None:
    settings = {"tokenizer": chat_tokenizer(), "kind": "qwen", "max_position_embeddings": 600}
    save_checkpoint(
        tmp_path / "plain",
        "Qwen3ForCausalLM",
        tokens={"chat_template": TEMPLATE},
        tie_word_embeddings=shared,
        **settings,
    )
    transformer = Transformer(str(tmp_path / "plain"), transformer_task="text-generation")
    ids = [transformer.tokenizer.convert_tokens_to_ids(word) for word in answers]
    model = CrossEncoder(modules=[transformer, LogitScore(*ids)], device="cpu")
    model.save_pretrained(str(tmp_path / "model"), create_model_card=False)
    assert_parity(tmp_path / "model")
    assert_parity(tmp_path / "model", documents=["fox " * 900, "hello"])


@pytest.mark.slow
def test_a_classifier_with_a_chat_template(tmp_path: Path) -> None:
    settings = {"tokenizer": chat_tokenizer(), "kind": "qwen", "max_position_embeddings": 600}
    save_checkpoint(
        tmp_path / "plain",
        "Qwen3ForSequenceClassification",
        tokens={"chat_template": TEMPLATE},
        num_labels=1,
        pad_token_id=1,
        **settings,
    )
    model = CrossEncoder(str(tmp_path / "plain"), device="cpu", prompts={"own": "judge me"}, default_prompt_name="own")
    model.save_pretrained(str(tmp_path / "model"), create_model_card=False)
    assert_parity(tmp_path / "model")


def test_a_template_without_the_roles_is_refused(tmp_path: Path) -> None:
    settings = {"tokenizer": chat_tokenizer(), "kind": "qwen", "max_position_embeddings": 600}
    tokens = {"chat_template": "{{ messages[-1].content }}"}
    save_checkpoint(tmp_path / "plain", "Qwen3ForCausalLM", tokens=tokens, **settings)
    transformer = Transformer(str(tmp_path / "plain"), transformer_task="text-generation")
    model = CrossEncoder(modules=[transformer, LogitScore(3)], device="cpu")
    model.save_pretrained(str(tmp_path / "model"), create_model_card=False)
    with pytest.raises(UnsupportedModelError, match="role 'query'"):
        open_checkpoint(str(tmp_path / "model"))


def test_a_query_that_leaves_no_room_is_refused(tmp_path: Path) -> None:
    save_reranker(tmp_path)
    with pytest.raises(InvalidInputError, match="no room for the document within 600"):
        score(tmp_path, "fox " * 900, ["hello"])


def test_truncation_of_template_pairs(tmp_path: Path) -> None:
    save_reranker(tmp_path)
    long = " ".join(f"fox {i}" for i in range(400))
    with pytest.raises(InvalidInputError, match="item 1 has more than 600 tokens"):
        score(tmp_path, QUERY, ["hello", long], truncate="none")
    end, start = (score(tmp_path, QUERY, [long], truncate=side)[0, 0] for side in ("end", "start"))
    assert abs(end - start) > 1e-4
    assert score(tmp_path, QUERY, ["hello"], truncate="none") == score(tmp_path, QUERY, ["hello"])


def test_a_cross_encoder_takes_no_instruction(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, "BertForSequenceClassification", num_labels=1)
    with pytest.raises(InvalidInputError, match="takes no instruction"):
        score(tmp_path, QUERY, ["hello"], instruction="find")
