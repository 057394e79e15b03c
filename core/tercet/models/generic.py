"""Architectures without a family of their own, run by transformers over a padded copy of the batch.

Slower than a family: padding is computed too. transformers is imported when such a model is loaded, never before.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, Self

import numpy as np
import torch
from torch import Tensor, nn

from tercet.errors import CheckpointError, UnsupportedModelError
from tercet.models.registry import Backbone, Config, families, num_labels
from tercet.nn.batch import PackedBatch, TokenSequence
from tercet.nn.heads import Classifier, MaskedLM

Reads = Literal["states", "states and language model", "classifier"]


class Generic(Backbone):
    """A transformers model; empty until `fill`.

    What it returns for each token is the last hidden state or, of a sequence classifier, the logits of its text: those
    heads pool in ways of their own. Some architectures look at padding whatever the mask says (MobileBERT's last token
    sees its neighbour's embedding); a trial after loading finds them, and their texts then run by equal lengths.
    """

    renames = {}

    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Module()
        self.pad_id, self.takes_types, self.ignores_padding = 0, False, True

    @classmethod
    def from_config(cls, config: Config) -> Self:
        """Return the module without its model."""
        return cls()

    @classmethod
    def masked_lm(cls, config: Config) -> GenericMaskedLM:
        """Return the language-model head, empty until `fill`."""
        return GenericMaskedLM(config["vocab_size"])

    @classmethod
    def classifier(cls, config: Config) -> Given:
        """Return the head that hands on the logits which the backbone computed."""
        return Given(num_labels(config))

    def fill(self, directory: Path, reads: Reads, device: torch.device, dtype: torch.dtype) -> nn.Module | None:
        """Load the model, and return what of it turns states into vocabulary logits, if that is asked for.

        Raises:
            CheckpointError: weights are missing, damaged or of the wrong shape.
        """
        model: Any = read(directory, reads, dtype).to(device).eval()
        self.pad_id = getattr(model.config, "pad_token_id", None) or 0
        self.takes_types = "token_type_ids" in inspect.signature(model.forward).parameters
        with_head = reads == "states and language model"
        self.model = model.base_model if with_head else model
        self.ignores_padding = self._try_padding(device, dtype)
        if not with_head:
            return None
        setattr(model, model.base_model_prefix, GivenStates())
        head: nn.Module = model
        return head

    def forward(self, batch: PackedBatch) -> Tensor:
        """Return (T, H) last hidden states, or (T, labels) logits of a classifier."""
        if self.ignores_padding:
            return self._run(batch)
        states: dict[int, Tensor] = {}
        for length in set(batch.lengths):
            chosen = [i for i, n in enumerate(batch.lengths) if n == length]
            part = PackedBatch.of([batch.sequences[i] for i in chosen], batch.input_ids.device)
            states |= zip(chosen, self._run(part).split(length), strict=True)  # type: ignore[no-untyped-call]
        return torch.cat([states[i] for i in range(len(batch.lengths))])

    @torch.inference_mode()
    def _try_padding(self, device: torch.device, dtype: torch.dtype) -> bool:
        """Return whether a text gives the same states beside a longer one as alone."""
        short, long = (TokenSequence(np.arange(2, 2 + n)) for n in (4, 12))
        alone, beside = (self._run(PackedBatch.of(texts, device)).float()[:4] for texts in ([short], [short, long]))
        tolerance = torch.finfo(dtype).eps ** 0.5
        return bool((alone - beside).abs().max() <= tolerance * alone.abs().max())

    def _run(self, batch: PackedBatch) -> Tensor:
        where = (batch.sequence_index, batch.positions)
        inputs = {"input_ids": self._padded(batch.input_ids, batch, self.pad_id)}
        inputs["attention_mask"] = self._padded(_attended(batch), batch, 0)
        if self.takes_types and batch.token_types is not None:
            inputs["token_type_ids"] = self._padded(batch.token_types, batch, 0)
        out = self.model(**inputs)
        if "last_hidden_state" in out:
            states: Tensor = out.last_hidden_state[where]
            return states
        logits: Tensor = out.logits[batch.sequence_index]
        return logits

    def _padded(self, values: Tensor, batch: PackedBatch, filling: int) -> Tensor:
        """Return (T,) values as (B, L)."""
        padded = values.new_full((len(batch.lengths), batch.max_seqlen), filling)
        padded[batch.sequence_index, batch.positions] = values
        return padded


class GivenStates(nn.Module):
    """Stands where a language model has its backbone, and returns the states it is given."""

    def forward(self, *_: Any, inputs_embeds: Tensor, **__: Any) -> Any:
        """Return a backbone's output with these states; the caller's other inputs are all None."""
        from transformers.modeling_outputs import BaseModelOutput

        return BaseModelOutput(last_hidden_state=inputs_embeds)


class GenericMaskedLM(MaskedLM):
    """A transformers language-model head on states that were computed before; `model` is set after loading."""

    def __init__(self, vocab: int) -> None:
        nn.Module.__init__(self)
        self.model = nn.Module()
        self.decoder = SimpleNamespace(out_features=vocab)  # type: ignore[assignment]

    def transform(self, hidden: Tensor) -> Tensor:
        """Return the states as they are."""
        return hidden

    def decode(self, transformed: Tensor) -> Tensor:
        """Return (T, V) logits."""
        logits: Tensor = self.model(inputs_embeds=transformed[None]).logits[0]
        return logits


class Given(Classifier):
    """Each text's logits, which the backbone repeats on every token."""

    def __init__(self, labels: int) -> None:
        nn.Module.__init__(self)
        self.labels = labels

    def forward(self, hidden: Tensor, batch: PackedBatch) -> Tensor:
        """Return (B, L) logits."""
        return hidden[batch.cu_seqlens[:-1].long()]


def check_buildable(config: Config, architecture: str) -> None:
    """Make sure that transformers can build the architecture.

    Raises:
        UnsupportedModelError: it cannot; the message lists the families that exist.
    """
    import transformers
    from transformers import CONFIG_MAPPING, MODEL_MAPPING

    kind = config.get("model_type")
    known = kind in CONFIG_MAPPING and CONFIG_MAPPING[kind] in MODEL_MAPPING and hasattr(transformers, architecture)
    if not known or (config.get("is_encoder_decoder") and not architecture.endswith("EncoderModel")):
        raise UnsupportedModelError(
            f"neither a family nor transformers {transformers.__version__} runs the architecture {architecture!r} "
            f"(model_type {kind!r}) as an encoder, and code from checkpoints is never run; "
            f"families: {', '.join(sorted(families()))}"
        )


def read(directory: Path, reads: Reads, dtype: torch.dtype) -> Any:
    """Return the transformers model in `directory`, on the host.

    Raises:
        CheckpointError: weights are missing, damaged or of the wrong shape.
    """
    try:
        model, report = _class(directory, reads).from_pretrained(
            directory,
            dtype=dtype,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"transformers cannot load {directory}: {error}") from error
    _check(directory, report, reads)
    return model


def _class(directory: Path, reads: Reads) -> Any:
    import transformers

    if reads == "classifier":
        return transformers.AutoModelForSequenceClassification
    if reads == "states and language model":
        return transformers.AutoModelForMaskedLM
    architectures = transformers.AutoConfig.from_pretrained(directory).architectures or ("",)
    named = architectures[0]
    return getattr(transformers, named) if named.endswith("EncoderModel") else transformers.AutoModel


def _check(directory: Path, report: dict[str, Collection[Any]], reads: Reads) -> None:
    """Refuse weights that transformers would draw at random; a pooler that nothing reads may be missing."""
    missing = [name for name in report["missing_keys"] if reads == "classifier" or "pooler" not in name]
    wrong = [f"missing: {name}" for name in sorted(missing)]
    wrong += [f"wrong shape: {name}" for name in sorted(map(str, report["mismatched_keys"]))]
    if wrong:
        raise CheckpointError(f"the weights in {directory} do not fit the model: {'; '.join(wrong[:8])}")


def _attended(batch: PackedBatch) -> Tensor:
    """Return (T,) int64: 1 for a token that may be attended to."""
    if batch.attended is None:
        return torch.ones_like(batch.input_ids)
    seen = torch.zeros_like(batch.input_ids)
    seen[batch.attended_index[0]] = 1
    return seen
