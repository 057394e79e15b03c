"""The description under `/openapi.json` against the server: drawn requests get the answers that it promises.

Beyond what schemathesis checks by itself: a fault of the server is never an answer, and "not now" says when to come
back.
"""

from __future__ import annotations

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, strategies
from hypothesis import settings as hypothesis_settings
from schemathesis import checks
from schemathesis.config import SchemathesisConfig

from support.loopback import loopback
from support.tiny_models import save_bert, save_m3
from tercet_server.app import create_app, endpoints
from tercet_server.openapi import openapi
from tercet_server.settings import Settings

# Names that lead somewhere: drawn ones would all end at "no such model".
MODELS = ("m3", "reranker", "bm25", "no/such-model")
CHECKS = [
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
]


def described() -> Any:
    """Return the description as schemathesis reads it, without the cases that it makes up for coverage."""
    config = SchemathesisConfig()
    config.projects.default.phases.coverage.enabled = False
    return schemathesis.openapi.from_dict(openapi(endpoints()), config=config)


def with_models(value: Any) -> Any:
    """Return the value with a model of the server's wherever one is named."""
    if isinstance(value, list):
        return [with_models(item) for item in value]
    if not isinstance(value, dict):
        return value
    known = {"model": MODELS[len(value["model"]) % len(MODELS)]} if isinstance(value.get("model"), str) else {}
    return {name: with_models(item) for name, item in value.items()} | known


# Not by schemathesis's own parametrize: its tests all have one id, of which pytest-xdist runs the first alone.
OPERATIONS = {result.ok().label: result.ok() for result in described().get_all_operations()}


def drawn(examples: int) -> Any:
    """Return a decorator that runs a test for each operation with so many drawn cases of it."""
    limited = hypothesis_settings(
        max_examples=examples,
        deadline=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    return lambda test: pytest.mark.parametrize("operation", OPERATIONS)(limited(given(data=strategies.data())(test)))


@pytest.fixture(scope="module")
def url(engine, tmp_path_factory):
    made = {name: tmp_path_factory.mktemp(name) for name in ("m3", "reranker")}
    save_m3(made["m3"])
    save_bert(made["reranker"], architecture="BertForSequenceClassification", num_labels=1)
    aliases = {name: str(folder) for name, folder in made.items()}
    settings = Settings(models=tuple(aliases.values()), aliases=aliases, defaults={"score": aliases["reranker"]})
    with loopback(create_app(engine, settings)) as url:
        yield url


def agrees(case: Any, url: str) -> None:
    case.body, case.path_parameters = with_models(case.body), with_models(case.path_parameters)
    if case.headers:
        case.headers.pop("X-Request-Timeout-Ms", None)  # else most requests would have no time
    answer = case.call(base_url=url)
    case.validate_response(answer, checks=CHECKS)
    assert answer.status_code < 500 or answer.status_code == 503, answer.text
    assert answer.status_code not in (429, 503) or int(answer.headers["retry-after"][0]) >= 1


@drawn(examples=6)
def test_answers_are_those_described(operation, data, url):
    agrees(data.draw(OPERATIONS[operation].as_strategy()), url)


@pytest.mark.slow
@drawn(examples=200)
def test_many_answers_are_those_described(operation, data, url):
    agrees(data.draw(OPERATIONS[operation].as_strategy()), url)
