"""Rerankers that answer yes or no: a causal language model and a template."""

from __future__ import annotations

from collections.abc import Sequence

from tercet.checkpoints.files import Files
from tercet.checkpoints.layouts.chat_template import declared_template, read_pair_template
from tercet.checkpoints.layouts.cross_encoder import score_activation
from tercet.checkpoints.layouts.layout import Layout
from tercet.checkpoints.layouts.modules import Module, check_order
from tercet.checkpoints.spec import PairTemplate, YesNoSpec
from tercet.errors import UnsupportedModelError
from tercet.models.registry import families

# Qwen3-Reranker's template (Zhang et al. 2025, arXiv:2506.05176); a bare checkpoint's files do not hold it.
QWEN3 = PairTemplate(
    start=(
        "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
        'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n<Instruct>: '
    ),
    before_query="\n<Query>: ",
    before_document="\n<Document>: ",
    end="<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
    instruction="Given a web search query, retrieve relevant passages that answer the query",
)


def bare(files: Files) -> YesNoSpec | None:
    """Return the score of a causal language model without `modules.json`, None where its vocabulary is another."""
    yes, no, turn = (files.tokenizer.token_to_id(token) for token in ("yes", "no", "<|im_start|>"))
    if yes is None or no is None or turn is None or files.architecture not in families():
        return None
    return YesNoSpec(yes, no, read_pair_template(files) or QWEN3)


def read(files: Files, modules: Sequence[Module]) -> Layout:
    """Return the score that a LogitScore module describes."""
    check_order(modules, ("LogitScore",), files.root / "modules.json")
    if files.architecture not in families():
        raise UnsupportedModelError(
            f"{files.config.path} names {files.architecture}; LogitScore goes with a family of Tercet's own: "
            f"{', '.join(sorted(families()))}"
        )
    config = modules[1].config
    no = config.typed("false_token_id", int) if "false_token_id" in config else None
    yes = config.typed("true_token_id", int)
    return Layout({"score": YesNoSpec(yes, no, declared_template(files), score_activation(files, 1))})
