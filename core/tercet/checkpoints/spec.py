"""`ModelSpec`: what a checkpoint's own files say it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from tercet.types import Output


@dataclass(frozen=True, slots=True)
class DenseLayer:
    """A Dense step.

    Attributes:
        path: its weights' file; None where they lie among the backbone's, as `linear` (Stanford ColBERT).
        residual: adds the input, projected by a matrix of its own where the widths differ.
    """

    path: Path | None
    in_features: int
    out_features: int
    bias: bool = True
    activation: str | None = None
    residual: bool = False


@dataclass(frozen=True, slots=True)
class LayerNormStep:
    """A LayerNorm step: its weights' file and width."""

    path: Path
    width: int


@dataclass(frozen=True, slots=True)
class NormalizeStep:
    """Division by the L2 norm."""


Step = DenseLayer | LayerNormStep | NormalizeStep


@dataclass(frozen=True, slots=True)
class DenseSpec:
    """One vector per text: poolings side by side, then steps in order."""

    poolings: tuple[str, ...]
    steps: tuple[Step, ...]
    dims: int
    include_prompt: bool = True

    @property
    def normalized(self) -> bool:
        """Whether the vectors have unit length."""
        return any(isinstance(step, NormalizeStep) for step in self.steps)


@dataclass(frozen=True, slots=True)
class SpladeSpec:
    """Lexical weights from masked-language-model logits.

    Attributes:
        pooling: "max" or "sum" over tokens.
        activation: "log1p_relu", or "log1p_log1p_relu" (OpenSearch v3).
    """

    dims: int
    pooling: str = "max"
    activation: str = "log1p_relu"


@dataclass(frozen=True, slots=True)
class LexicalSpec:
    """BGE-M3's lexical weights: one linear layer to a weight per token, maximum per token id."""

    path: Path
    dims: int
    dropped_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TokenRules:
    """How one side's texts (queries or documents) become the tokens of a multivector.

    Attributes:
        max_length: most tokens, None for the model's own limit.
        marker: token that is inserted at position 1 (ColBERT's [Q] and [D]).
        expand_to: fewest tokens; shorter texts are filled up with `expansion` tokens, whose vectors are kept.
        attend_to_expansion: whether the filling may be attended to.
        skipped: token ids whose vectors are dropped (punctuation).
    """

    max_length: int | None = None
    marker: int | None = None
    expand_to: int = 0
    expansion: int | None = None
    attend_to_expansion: bool = False
    skipped: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class MultiVectorSpec:
    """One vector per token.

    Attributes:
        dims: of each vector.
        steps: projections in order.
        query, document: which tokens each side has.
        drop_first: whether the first token's vector is left out (BGE-M3).
        mean_over_query: whether its score is the mean over query tokens (BGE-M3) and not the sum.
        trained: False for the token states of a model without a late-interaction head.
    """

    dims: int
    steps: tuple[Step, ...] = (NormalizeStep(),)
    query: TokenRules = TokenRules()
    document: TokenRules = TokenRules()
    drop_first: bool = False
    mean_over_query: bool = False
    trained: bool = True


@dataclass(frozen=True, slots=True)
class PairTemplate:
    """What a language model is shown: start, instruction, before_query, query, before_document, document, end.

    Attributes:
        instruction: the task where the caller names none; None where the template has no place for one.
    """

    start: str
    before_query: str
    before_document: str
    end: str
    instruction: str | None = None


@dataclass(frozen=True, slots=True)
class CrossEncoderSpec:
    """A sequence classifier that reads query and document together.

    Attributes:
        activation: key of ACTIVATIONS.
        template: None where the texts stand between the tokeniser's special tokens.
    """

    labels: int
    activation: str | None
    template: PairTemplate | None = None


@dataclass(frozen=True, slots=True)
class YesNoSpec:
    """A causal language model's answer at the last token: activation(logit of yes − logit of no).

    Attributes:
        no_id: None where the logit of yes alone is the score.
        template: None where the texts stand between the tokeniser's special tokens, as for a cross-encoder.
        activation: key of ACTIVATIONS; "sigmoid" makes the score softmax over the two.
    """

    yes_id: int
    no_id: int | None
    template: PairTemplate | None
    activation: str | None = "sigmoid"

    @property
    def answers(self) -> tuple[int, ...]:
        """The rows of the language-model head that are read."""
        return (self.yes_id,) if self.no_id is None else (self.yes_id, self.no_id)


@dataclass(frozen=True, slots=True)
class StaticSparseSpec:
    """Inference-free lexical weights: one weight per token id from a table (OpenSearch doc-only models' queries).

    Attributes:
        path: a safetensors file that holds `weight`, (V,), or a JSON object from token to weight.
    """

    path: Path
    dims: int


@dataclass(frozen=True, slots=True)
class Bm25Spec:
    """Word counts as lexical weights: no tokeniser, no weights; indices are hashes of stems."""

    language: str
    dims: int = 2**32


HeadSpec = DenseSpec | SpladeSpec | LexicalSpec | MultiVectorSpec | CrossEncoderSpec | YesNoSpec | Bm25Spec


@dataclass(frozen=True)
class ModelSpec:
    """What a checkpoint is, read from its files and never from its name.

    Attributes:
        id: as the caller named it, without the revision.
        revision: the commit or version it was resolved to, None for a plain directory.
        directory: where the backbone's files are, `config.json` and the tokeniser's among them.
        config: `config.json` of the backbone.
        architecture: the first of `config["architectures"]`.
        heads: per output ("dense", "sparse", "multivector", "score") what computes it.
        query_sparse: the table that replaces the forward pass for queries, if any.
        max_length: tokens read of one text, special tokens included.
        prompts: named prompts; query_prompt and document_prompt name those used by default for each side.
        lower_case: whether texts are lower-cased before the tokeniser.
        token_types: whether token types tell the second text of a pair from the first.
        pair_truncation: how over-long pairs are cut, see `template.PairTruncation`.
        weights: the backbone's safetensors files.
        size_bytes: bytes of all tensors at float32, from the headers.
        notes: what a user should know (a generic backbone, untrained token states).
    """

    FORMAT: ClassVar[int] = 1

    id: str
    revision: str | None
    directory: Path
    config: Mapping[str, Any]
    architecture: str
    heads: Mapping[str, HeadSpec]
    max_length: int
    weights: tuple[Path, ...]
    size_bytes: int
    prompts: Mapping[str, str] = field(default_factory=dict)
    query_prompt: str | None = None
    document_prompt: str | None = None
    query_sparse: StaticSparseSpec | None = None
    lower_case: bool = False
    token_types: bool = True
    pair_truncation: str = "longest_first"
    notes: tuple[str, ...] = ()

    @property
    def hidden_size(self) -> int:
        """Width of the token states."""
        return hidden_size(self.config)

    @property
    def vocab_size(self) -> int:
        """Rows of the word table."""
        return int(self.config["vocab_size"])

    @property
    def outputs(self) -> tuple[Output, ...]:
        """What `encode` can return."""
        known: tuple[Output, ...] = ("dense", "sparse", "multivector")
        return tuple(name for name in known if name in self.heads)

    @property
    def dims(self) -> Mapping[str, int]:
        """Dimensions per head: of a vector, of the index space of a sparse one, labels of a classifier."""
        return {name: _dims(head) for name, head in self.heads.items()}


def hidden_size(config: Mapping[str, Any]) -> int:
    """Return the width of the token states, whatever an architecture calls it."""
    return int(next(config[key] for key in ("hidden_size", "dim", "d_model", "n_embd") if key in config))


def _dims(head: HeadSpec) -> int:
    match head:
        case CrossEncoderSpec():
            return head.labels
        case YesNoSpec():
            return 1
        case _:
            return head.dims
