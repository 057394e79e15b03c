"""Requests: what a caller asked for, checked against what the model can do."""

from __future__ import annotations

from dataclasses import dataclass

from tercet.checkpoints.checkpoint import EncodeSettings, PairSettings
from tercet.checkpoints.spec import ModelSpec, MultiVectorSpec
from tercet.errors import InvalidInputError, UnsupportedOperationError
from tercet.inputs import EncodeParams, ScoreParams
from tercet.types import Output, OutputDType

# A scoring by embeddings needs the output of its name.
_SCORED_OUTPUT: dict[str, Output] = {"maxsim": "multivector", "dense": "dense", "sparse": "sparse"}


@dataclass(frozen=True, slots=True)
class EncodeRequest:
    """How to encode: the settings for the tokeniser, and what becomes of the rows.

    Attributes:
        pool_factor: option; multivectors of documents keep about 1 / pool_factor of their vectors.
        top_k: option; sparse vectors keep their k largest weights.
    """

    settings: EncodeSettings
    dimensions: int | None = None
    output_dtype: OutputDType = "float32"
    pool_factor: int | None = None
    top_k: int | None = None

    @property
    def outputs(self) -> tuple[Output, ...]:
        """The outputs asked for, each once."""
        return self.settings.outputs


@dataclass(frozen=True, slots=True)
class ScoreRequest:
    """How to score: `scoring` of `inputs.SCORINGS`, `activation` of `inputs.ACTIVATIONS`; None is the model's own."""

    settings: PairSettings
    scoring: str | None = None
    top_k: int | None = None
    activation: str | None = None


def encode_request(params: EncodeParams) -> EncodeRequest:
    """Return the request that the caller's parameters make."""
    return EncodeRequest(
        settings=EncodeSettings(params.output_types, params.is_query, params.prompt, params.truncate),
        dimensions=params.dimensions,
        output_dtype=params.output_dtype,
        pool_factor=params.options.get("pool_factor"),
        top_k=params.options.get("top_k"),
    )


def score_request(params: ScoreParams) -> ScoreRequest:
    """Return the request that the caller's parameters make."""
    options = params.options
    settings = PairSettings(options.get("instruction"), options.get("truncate", "end"))
    return ScoreRequest(settings, options.get("scoring"), params.top_k, options.get("activation"))


def check_encode(request: EncodeRequest, spec: ModelSpec) -> None:
    """Raise if the model cannot do what the request asks.

    Raises:
        UnsupportedOperationError: it lacks an output.
        InvalidInputError: it has fewer dimensions than asked for.
    """
    for output in request.outputs:
        if output not in spec.outputs:
            has = ", ".join(spec.outputs) or "none; it only scores"
            raise UnsupportedOperationError(f"{spec.id} has no {output!r} output; it has: {has}")
    for output in set(request.outputs) & {"dense", "multivector"}:
        dims = spec.dims[output]
        if request.dimensions is not None and request.dimensions > dims:
            raise InvalidInputError(
                f"dimensions={request.dimensions}: {spec.id} gives {dims} for {output}; ask for 1 to {dims}"
            )
        width = request.dimensions or dims
        if request.output_dtype in ("binary", "ubinary") and width % 8:
            raise InvalidInputError(
                f"{request.output_dtype} packs 8 dimensions into a byte and {width} is no multiple of 8"
            )
    if request.dimensions is not None and request.outputs == ("sparse",):
        raise InvalidInputError("dimensions applies to dense and multivector outputs; sparse has options={'top_k': k}")


def scorings(spec: ModelSpec) -> tuple[str, ...]:
    """Return the ways this model can score, its own first."""
    own = ["cross-encoder"] if "score" in spec.heads else []
    multivector = spec.heads.get("multivector")
    trained = isinstance(multivector, MultiVectorSpec) and multivector.trained
    order = ("maxsim", "dense", "sparse") if trained else ("dense", "sparse", "maxsim")
    return (*own, *(way for way in order if _SCORED_OUTPUT[way] in spec.outputs))


def scoring_of(request: ScoreRequest, spec: ModelSpec) -> str:
    """Return how to score.

    Raises:
        UnsupportedOperationError: the model cannot score so, or its classifier has more than one label.
    """
    ways = scorings(spec)
    scoring = request.scoring or (ways[0] if ways else "cross-encoder")
    if scoring not in ways:
        raise UnsupportedOperationError(
            f"{spec.id} cannot score by {scoring!r}; it can by: {', '.join(ways) or 'nothing'}"
        )
    labels = spec.dims.get("score", 1)
    if scoring == "cross-encoder" and labels != 1:
        raise UnsupportedOperationError(f"{spec.id} classifies into {labels} labels; a reranker has one")
    if request.settings.instruction is not None and scoring != "cross-encoder":
        raise InvalidInputError(
            f"options['instruction'] belongs to rerankers with a template; {spec.id} scores by {scoring}"
        )
    return scoring


def scored_output(scoring: str) -> Output:
    """Return the output that a scoring by embeddings reads."""
    return _SCORED_OUTPUT[scoring]
