"""`Processor`: items to token sequences, as the checkpoint was trained to read them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

from tercet.checkpoints.checkpoint import EncodeSettings, PairSettings, Prepared, Ready
from tercet.checkpoints.marking import expanded, marked, without_skipped
from tercet.checkpoints.pairs import cross_pairs, template_pairs
from tercet.checkpoints.spec import (
    CrossEncoderSpec,
    DenseSpec,
    ModelSpec,
    MultiVectorSpec,
    TokenRules,
    YesNoSpec,
)
from tercet.checkpoints.static_sparse import StaticSparse
from tercet.checkpoints.tokenizer import Tokenizer
from tercet.errors import InvalidInputError, UnsupportedOperationError
from tercet.inputs import token_ids
from tercet.nn.batch import TokenSequence
from tercet.types import Item

_FREE = TokenRules()


class Processor:
    """Prompts, markers, special tokens and truncation around a checkpoint's tokeniser. Thread-safe."""

    def __init__(self, spec: ModelSpec, tokenizer: Tokenizer) -> None:
        self.spec = spec
        self.tokenizer = tokenizer

    def encode(self, items: Sequence[Item], settings: EncodeSettings, first: int = 0) -> list[Prepared]:
        """Return one sequence (or ready answer) per item; see `Checkpoint.encode`."""
        prompt = self.prompt(settings)
        if settings.is_query and self._static is not None and "sparse" in settings.outputs:
            return self._static_queries(items, settings, prompt, first)
        if all(item.input_ids is None for item in items):
            return [*self._from_texts(items, prompt, settings, first)]
        return [
            self._from_texts([item], prompt, settings, i)[0]
            if item.input_ids is None
            else self._given(item, settings, i)
            for i, item in enumerate(items, first)
        ]

    def pairs(self, query: Item, documents: Sequence[Item], settings: PairSettings, first: int = 0) -> list[Prepared]:
        """Return one sequence per (query, document); see `Checkpoint.pairs`."""
        head = self.spec.heads.get("score")
        if isinstance(head, CrossEncoderSpec | YesNoSpec):
            question = self._cased(_text(query, "the query"))
            texts = [self._cased(_text(item, f"item {i}")) for i, item in enumerate(documents, first)]
            if head.template is not None:
                return [*template_pairs(self.tokenizer, self.spec, head.template, question, texts, settings, first)]
            prompt = self._cased(self.spec.prompts.get(self.spec.query_prompt or "", ""))
            return [*cross_pairs(self.tokenizer, self.spec, prompt + question, texts, settings, first)]
        raise UnsupportedOperationError(
            f"{self.spec.id} reads no pairs; it has {', '.join(self.spec.outputs)}, whose similarity is a score too"
        )

    def prompt(self, settings: EncodeSettings) -> str:
        """Return the text in front of the items': the named prompt, the text as given, or the side's own."""
        if settings.prompt is not None:
            return self.spec.prompts.get(settings.prompt, settings.prompt)
        name = self.spec.query_prompt if settings.is_query else self.spec.document_prompt
        return self.spec.prompts[name] if name is not None else ""

    # Inside

    @cached_property
    def _static(self) -> StaticSparse | None:
        table = self.spec.query_sparse
        return StaticSparse(table, self.tokenizer) if table is not None else None

    @cached_property
    def _leaves_prompt_out(self) -> bool:
        dense = self.spec.heads.get("dense")
        return isinstance(dense, DenseSpec) and not dense.include_prompt

    def _rules(self, settings: EncodeSettings) -> TokenRules:
        head = self.spec.heads.get("multivector")
        if "multivector" not in settings.outputs or not isinstance(head, MultiVectorSpec):
            return _FREE
        rules = head.query if settings.is_query else head.document
        return _FREE if rules == _FREE else rules

    def _limit(self, rules: TokenRules) -> int:
        """Return the most tokens of a text, special ones and marker included."""
        return min(self.spec.max_length, rules.max_length or self.spec.max_length)

    def _from_texts(
        self, items: Sequence[Item], prompt: str, settings: EncodeSettings, first: int
    ) -> list[TokenSequence]:
        rules = self._rules(settings)
        limit, place = self._limit(rules), len(self.tokenizer.single_template.ids[0])
        texts = [self._cased(prompt + _text(item, f"item {i}")) for i, item in enumerate(items, first)]
        sequences = self.tokenizer.singles(texts, limit - (rules.marker is not None), settings.truncate, first)
        for i, sequence in enumerate(sequences, first):
            if not len(sequence):
                raise InvalidInputError(f"item {i} has no tokens; give it some text")
        if self._leaves_prompt_out and prompt:
            begin = place + len(self.tokenizer.content([self._cased(prompt)])[0])
            sequences = [replace(s, pooled_from=min(begin, len(s) - 1)) for s in sequences]
        if rules is _FREE:
            return sequences
        return [without_skipped(expanded(marked(s, place, rules), rules, limit), rules) for s in sequences]

    def _given(self, item: Item, settings: EncodeSettings, index: int) -> TokenSequence:
        """Return the sequence of an item's own token ids, to which nothing is added.

        Raises:
            InvalidInputError: they are no token ids, or more than the model reads.
        """
        rules = self._rules(settings)
        limit = self._limit(rules)
        ids = token_ids(item.input_ids, index)
        size = self.spec.vocab_size
        if ids.min() < 0 or ids.max() >= size:
            wrong = ids.min() if ids.min() < 0 else ids.max()
            raise InvalidInputError(f"item {index}: input_ids has {wrong}; the vocabulary has ids from 0 to {size - 1}")
        if len(ids) > limit:
            raise InvalidInputError(
                f"item {index} has {len(ids)} input_ids, which are used as they are; the model reads at most {limit}"
            )
        return without_skipped(TokenSequence(ids), rules)

    def _static_queries(
        self, items: Sequence[Item], settings: EncodeSettings, prompt: str, first: int
    ) -> list[Prepared]:
        assert self._static is not None
        if settings.outputs != ("sparse",):
            raise UnsupportedOperationError(
                f"{self.spec.id} reads sparse queries off a table; ask for output_types=['sparse'] alone for queries"
            )
        texts = [self._cased(prompt + _text(item, f"item {i}")) for i, item in enumerate(items, first)]
        ready: list[Ready] = self._static.encode(texts, self.spec.max_length, settings.truncate, first)
        return [*ready]

    def _cased(self, text: str) -> str:
        return _lowered(text) if self.spec.lower_case else text


def _text(item: Item, name: str) -> str:
    if isinstance(item.text, str):
        return item.text
    if item.text is not None:
        raise InvalidInputError(f"{name} is {type(item.text).__name__}, not a text (str)")
    given = "input_ids, which cannot be used here" if item.input_ids is not None else "neither text nor input_ids"
    raise InvalidInputError(f"{name} has {given}; give it a text")


def _lowered(text: str) -> str:
    """Return the text lower-cased character by character, as tokenisers do it: Σ is always σ, even at a word's end."""
    return text.lower() if "Σ" not in text else "".join(character.lower() for character in text)
