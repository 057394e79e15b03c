"""The fingerprint: the same for the same vectors, another for whatever changes them."""

import json

import pytest
from safetensors.torch import load_file, save_file

from support.tiny_models import save_bert, save_m3
from tercet.checkpoints import fingerprint as module
from tercet.checkpoints.open import open_checkpoint


def of(directory):
    return open_checkpoint(str(directory)).fingerprint


@pytest.fixture
def bert(tmp_path):
    save_bert(tmp_path / "bert")
    return tmp_path / "bert"


def test_a_copy_elsewhere_has_the_same(bert, tmp_path):
    before = of(bert)
    moved = bert.rename(tmp_path / "moved")
    assert of(moved) == before and len(before) == 32


def edit_config(directory, **changes):
    path = directory / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_notes_in_the_configuration_do_not_count_and_settings_do(bert):
    before = of(bert)
    edit_config(bert, transformers_version="0.0.0", _name_or_path="x/y")
    assert of(bert) == before
    edit_config(bert, layer_norm_eps=1e-3)
    assert of(bert) != before


@pytest.mark.parametrize("whole", [True, False], ids=["in whole", "in samples"])
def test_each_changed_tensor_counts(bert, whole, monkeypatch):
    if not whole:
        monkeypatch.setattr(module, "_WHOLE", 0)
        monkeypatch.setattr(module, "_SAMPLE", 8)
    weights = load_file(bert / "model.safetensors")
    seen = {of(bert)}
    for name in weights:
        save_file({**weights, name: weights[name] + 1}, bert / "model.safetensors")
        seen.add(of(bert))
    assert len(seen) == len(weights) + 1


def test_side_files_and_the_tokeniser_count(tmp_path):
    save_m3(tmp_path / "m3")
    seen = {of(tmp_path / "m3")}
    for name in ("sparse_linear.pt", "tokenizer_config.json"):
        (tmp_path / "m3" / name).write_bytes((tmp_path / "m3" / name).read_bytes() + b" ")
        seen.add(of(tmp_path / "m3"))
    assert len(seen) == 3


def test_bm25_has_one_for_each_language():
    found = {open_checkpoint(name).fingerprint for name in ("bm25", "bm25:english", "bm25:german")}
    assert len(found) == 2
