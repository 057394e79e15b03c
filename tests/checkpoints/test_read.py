"""Files that are missing, damaged or contradict each other: the error names the file, the value and what is known."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.checkpoints import rewrite, save_checkpoint
from tercet.checkpoints.open import open_checkpoint
from tercet.checkpoints.read import read_spec
from tercet.errors import CheckpointError, TercetError, UnsupportedModelError

ST = "sentence_transformers.models"


def modules(*kinds: str) -> list[dict[str, Any]]:
    paths = {0: ""}
    return [{"idx": i, "path": paths.get(i, f"{i}_{kind}"), "type": f"{ST}.{kind}"} for i, kind in enumerate(kinds)]


def write(file: Path, content: Any) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_text(content if isinstance(content, str) else json.dumps(content))


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A sound checkpoint in the layout with modules."""
    save_checkpoint(tmp_path)
    write(tmp_path / "modules.json", modules("Transformer", "Pooling", "Normalize"))
    write(tmp_path / "1_Pooling" / "config.json", {"embedding_dimension": 32, "pooling_mode": "mean"})
    return tmp_path


def pooling(**config: Any) -> Callable[[Path], object]:
    return lambda d: write(d / "1_Pooling" / "config.json", config)


def listed(*kinds: str, **more: Any) -> Callable[[Path], object]:
    return lambda d: write(d / "modules.json", [{**entry, **more} for entry in modules(*kinds)])


def config(**changes: Any) -> Callable[[Path], object]:
    return lambda d: rewrite(d / "config.json", **changes)


def dense(**changes: Any) -> Callable[[Path], object]:
    def spoil(d: Path) -> None:
        write(d / "modules.json", modules("Transformer", "Pooling", "Dense"))
        write(d / "2_Dense" / "config.json", {"in_features": 32, "out_features": 8, **changes})
        write(d / "2_Dense" / "model.safetensors", "")

    return spoil


SPOILT: dict[str, tuple[Callable[[Path], object], type[TercetError], str]] = {
    "no JSON": (lambda d: write(d / "config.json", "{"), CheckpointError, r"config\.json is not JSON"),
    "a list": (lambda d: write(d / "config.json", "[]"), CheckpointError, r"config\.json holds list"),
    "bad UTF-8": (lambda d: (d / "config.json").write_bytes(b"\xff{}"), CheckpointError, r"config\.json"),
    "no architecture": (config(architectures=None), CheckpointError, "names no architecture"),
    "unknown architecture": (config(architectures=["MyModel"], model_type="my"), UnsupportedModelError, "BertModel"),
    "no width": (config(hidden_size=None), CheckpointError, "names no hidden_size"),
    "modules: no list": (lambda d: write(d / "modules.json", {}), CheckpointError, r"modules\.json: expected a list"),
    "modules: empty": (lambda d: write(d / "modules.json", []), CheckpointError, r"modules\.json: expected a list"),
    "modules: no path": (listed("Transformer", path=None), CheckpointError, "path None"),
    "modules: outside": (listed("Transformer", path="../x"), CheckpointError, "leads out of the checkpoint"),
    "modules: absolute": (listed("Transformer", path="/etc"), CheckpointError, "leads out of the checkpoint"),
    "modules: unknown type": (listed("Transformer", "LSTM"), UnsupportedModelError, r"models\.LSTM.*known.*Pooling"),
    "modules: code of its own": (
        listed("Transformer", type="custom_st.Transformer"),
        UnsupportedModelError,
        r"custom_st\.Transformer",
    ),
    "modules: no transformer": (listed("Pooling"), UnsupportedModelError, "known first modules: Transformer"),
    "modules: nothing after": (listed("Transformer"), UnsupportedModelError, "lists Transformer for BertModel"),
    "modules: mixed": (
        listed("Transformer", "Pooling", "SpladePooling"),
        UnsupportedModelError,
        "lists Transformer, Pooling, SpladePooling",
    ),
    "modules: pooling late": (listed("Transformer", "Normalize", "Pooling"), CheckpointError, "Pooling must be"),
    "pooling: unknown": (pooling(pooling_mode="median"), UnsupportedModelError, "'median'.*known: .*mean"),
    "pooling: unknown flag": (
        pooling(pooling_mode_median_tokens=True),
        UnsupportedModelError,
        "pooling_mode_median_tokens.*pooling_mode_mean_tokens",
    ),
    "pooling: a number": (pooling(pooling_mode=3), UnsupportedModelError, "'pooling_mode': 3"),
    "pooling: another width": (pooling(embedding_dimension=64), CheckpointError, "64.*says 32"),
    "pooling: a flag that is none": (
        pooling(include_prompt="yes"),
        CheckpointError,
        "'include_prompt': 'yes'; expected a value of type bool",
    ),
    "dense: another width": (dense(in_features=31), CheckpointError, "'in_features': 31, but what reaches it is 32"),
    "dense: no width": (dense(out_features=None), CheckpointError, "lacks 'out_features'"),
    "dense: activation": (dense(activation_function="torch.nn.Softsign"), UnsupportedModelError, "Softsign.*gelu"),
    "dense: a boolean width": (dense(in_features=True), CheckpointError, "'in_features': True"),
    "prompt: no text": (
        lambda d: write(d / "config_sentence_transformers.json", {"prompts": {"query": 3}}),
        CheckpointError,
        "prompt 'query' is 3",
    ),
    "prompt: unknown default": (
        lambda d: write(d / "config_sentence_transformers.json", {"default_prompt_name": "x"}),
        CheckpointError,
        "'default_prompt_name': 'x'",
    ),
    "weights: missing": (
        lambda d: (d / "model.safetensors").rename(d / "one.safetensors"),
        CheckpointError,
        r"lacks model\.safetensors",
    ),
    "weights: damaged": (
        lambda d: write(d / "model.safetensors", "nonsense"),
        CheckpointError,
        "not a readable safetensors",
    ),
    "tokenizer: damaged": (lambda d: write(d / "tokenizer.json", "{}"), CheckpointError, r"tokenizer\.json"),
}


@pytest.mark.parametrize("case", SPOILT)
def test_what_is_wrong_is_said(case: str, directory: Path) -> None:
    assert open_checkpoint(str(directory)).spec.outputs == ("dense", "multivector")
    spoil, error, message = SPOILT[case]
    spoil(directory)
    with pytest.raises(error, match=f"(?s){message}"):
        open_checkpoint(str(directory))


def test_pickled_module_weights_are_refused(directory: Path) -> None:
    dense()(directory)
    (directory / "2_Dense" / "model.safetensors").rename(directory / "2_Dense" / "pytorch_model.bin")
    with pytest.raises(UnsupportedModelError, match="pickle only"):
        open_checkpoint(str(directory))


def test_shards_are_read_from_their_index(directory: Path) -> None:
    one = open_checkpoint(str(directory)).spec
    (directory / "model.safetensors").rename(directory / "model-1.safetensors")
    write(directory / "model.safetensors.index.json", {"weight_map": {"a": "model-1.safetensors"}})
    many = open_checkpoint(str(directory)).spec
    assert [file.name for file in many.weights] == ["model-1.safetensors"]
    assert many.size_bytes == one.size_bytes


def test_a_missing_shard_is_named(directory: Path) -> None:
    (directory / "model.safetensors").rename(directory / "one.safetensors")
    write(directory / "model.safetensors.index.json", {"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}})
    with pytest.raises(CheckpointError, match=r"lacks two\.safetensors"):
        open_checkpoint(str(directory))


ROUTES = [
    ({"query": ["a"], "document": ["b"]}, "query: Transformer"),
    ({"query": ["s"]}, "query: SparseStaticEmbedding"),
]


@pytest.mark.parametrize(("structure", "message"), ROUTES)
def test_routes_of_another_kind_are_refused(structure: Any, message: str, directory: Path) -> None:
    types = {"a": f"{ST}.Transformer", "b": f"{ST}.Transformer", "s": f"{ST}.SparseStaticEmbedding"}
    write(directory / "modules.json", modules("Router"))
    write(directory / "router_config.json", {"types": types, "structure": structure})
    with pytest.raises(UnsupportedModelError, match=f"{message}.*known: query: SparseStaticEmbedding"):
        open_checkpoint(str(directory))


def test_a_route_to_an_unlisted_module_is_malformed(directory: Path) -> None:
    write(directory / "modules.json", modules("Router"))
    write(directory / "router_config.json", {"types": {}, "structure": {"query": ["a"]}})
    with pytest.raises(CheckpointError, match="route 'query' lists"):
        open_checkpoint(str(directory))


LIMITS = [({}, {}, 64), ({"max_seq_length": 20}, {}, 20), ({}, {"model_max_length": 1e30}, 64)]


@pytest.mark.parametrize(
    ("transformer", "tokens", "expected"),
    [*LIMITS, ({"max_seq_length": 20}, {"model_max_length": 10}, 20), ({"max_seq_length": 900}, {}, 64)],
)
def test_the_length_is_the_least_of_what_is_stated_and_possible(
    transformer: Any, tokens: Any, expected: int, directory: Path
) -> None:
    write(directory / "sentence_bert_config.json", transformer)
    rewrite(directory / "tokenizer_config.json", **{"model_max_length": None, **tokens})
    assert read_spec("m", directory).max_length == expected


@pytest.mark.parametrize(
    ("settings", "query", "document"),
    [
        ({}, None, None),
        ({"prompts": {"query": "q: ", "document": "d: "}}, "query", "document"),
        ({"prompts": {"query": "q: ", "passage": "p: ", "corpus": "c: "}}, "query", "passage"),
        ({"prompts": {"query": "q: ", "document": ""}}, "query", None),
        ({"prompts": {"query": "q: "}, "default_prompt_name": "query"}, "query", None),
        ({"prompts": {"task": "t: "}, "default_prompt_name": "task"}, "task", "task"),
    ],
)
def test_each_side_takes_its_prompt(settings: Any, query: str | None, document: str | None, directory: Path) -> None:
    write(directory / "config_sentence_transformers.json", settings)
    spec = read_spec("m", directory)
    assert (spec.query_prompt, spec.document_prompt) == (query, document)


def test_the_catalogue_fills_in_prompts_that_no_file_declares(directory: Path) -> None:
    spec = read_spec("intfloat/e5-small-v2", directory)
    assert spec.prompts == {"query": "query: ", "document": "passage: "}
    write(directory / "config_sentence_transformers.json", {"prompts": {"query": "own: "}})
    assert read_spec("intfloat/e5-small-v2", directory).prompts == {"query": "own: "}


def test_the_catalogue_says_how_pairs_are_cut(directory: Path) -> None:
    assert read_spec("BAAI/bge-reranker-base", directory).pair_truncation == "query_three_quarters"
    assert read_spec("any/other", directory).pair_truncation == "longest_first"
