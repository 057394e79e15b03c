"""A transformers directory without `modules.json`: what its architecture is made for, with the usual pooling."""

from __future__ import annotations

from tercet.checkpoints.files import Files
from tercet.checkpoints.layouts import cross_encoder, stanford, yes_no
from tercet.checkpoints.layouts.layout import Layout, token_states
from tercet.checkpoints.spec import DenseSpec, HeadSpec, SpladeSpec


def read(files: Files) -> Layout:
    """Return the outputs of a bare checkpoint, as sentence-transformers would serve it."""
    architecture = files.architecture
    if architecture == stanford.ARCHITECTURE:
        return stanford.read(files)
    if architecture.endswith("ForSequenceClassification"):
        return cross_encoder.read(files)
    causal = architecture.endswith("ForCausalLM") and files.config.get("is_causal", True)
    pooling = "lasttoken" if causal else "mean"
    heads: dict[str, HeadSpec] = {
        "dense": DenseSpec((pooling,), (), files.hidden_size),
        "multivector": token_states(files.hidden_size),
    }
    notes = [f"no modules.json: {pooling} pooling is assumed, vectors are not normalised"]
    if architecture.endswith("ForMaskedLM"):
        heads["sparse"] = SpladeSpec(files.vocab_size)
        notes.append("sparse is SPLADE (max) over the language-model head")
    if causal and (score := yes_no.bare(files)):
        heads["score"] = score
        notes.append("score is the answer yes or no to Qwen3-Reranker's template")
    return Layout(heads, notes=tuple(notes))
