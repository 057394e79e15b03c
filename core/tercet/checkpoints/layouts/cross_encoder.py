"""…ForSequenceClassification: a classifier of (query, document) pairs."""

from __future__ import annotations

from collections.abc import Iterator

from tercet.checkpoints.files import Files, Settings
from tercet.checkpoints.layouts.chat_template import declared_template
from tercet.checkpoints.layouts.layout import Layout
from tercet.checkpoints.layouts.steps import read_activation
from tercet.checkpoints.spec import CrossEncoderSpec
from tercet.models.registry import num_labels


def read(files: Files) -> Layout:
    """Return the scores that the configuration describes."""
    labels = num_labels(files.config)
    return Layout({"score": CrossEncoderSpec(labels, score_activation(files, labels), declared_template(files))})


def score_activation(files: Files, labels: int) -> str | None:
    """Return the activation of scores: what the files name, else sigmoid for one label and none for several."""
    for settings, key in _declarations(files):
        if key in settings:
            return read_activation(str(settings.path), settings.typed(key, str))
    return "sigmoid" if labels == 1 else None


def _declarations(files: Files) -> Iterator[tuple[Settings, str]]:
    """Yield where sentence-transformers has written it, the newest place first."""
    config = files.config
    yield files.sentence_transformers, "activation_fn"
    yield Settings(config.path, config.typed("sentence_transformers", dict, {})), "activation_fn"
    yield config, "sbert_ce_default_activation_function"
