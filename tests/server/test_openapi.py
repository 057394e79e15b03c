"""The description: every address, every answer, and a page that needs nobody else."""

import re

import pytest

from support.servers import in_process
from tercet_server.app import endpoints
from tercet_server.openapi import openapi

pytestmark = pytest.mark.anyio
SPEC = openapi(endpoints())
OPERATIONS = [(path, verb, op) for path, verbs in SPEC["paths"].items() for verb, op in verbs.items()]


def test_every_endpoint_is_described_with_and_without_a_model():
    described = {(verb.upper(), path) for path, verb, _ in OPERATIONS}
    for endpoint in endpoints():
        assert (endpoint.method, endpoint.path) in described
        prefixed = (endpoint.method, f"/m/{{model}}{endpoint.path}".rstrip("/"))
        assert (prefixed in described) == (endpoint.modeled and "{model}" not in endpoint.path)


def test_operations_have_names_of_their_own():
    names = [op["operationId"] for _, _, op in OPERATIONS]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("one", OPERATIONS, ids=lambda one: f"{one[1]} {one[0]}")
def test_each_says_what_it_takes_and_gives(one):
    path, verb, op = one
    assert op["summary"] and any(status.startswith("2") for status in op["responses"])
    assert "504" in op["responses"]
    for faults in ({"400", "422"}, {"500", "424"}):  # the caller's and ours, the second ones those of TEI
        assert faults & op["responses"].keys()
    public = op["security"] == []
    assert public == ("401" not in op["responses"])
    assert ("requestBody" in op) <= (verb == "post") and ("{model}" in path) == any(
        parameter["in"] == "path" for parameter in op["parameters"]
    )
    for status, response in op["responses"].items():
        assert {"X-Request-Id", "X-Total-Ms"} <= response["headers"].keys()
        assert ("Retry-After" in response["headers"]) == (status in ("429", "503"))
        assert status < "300" or response["content"], "every refusal has a body"


def test_every_reference_leads_somewhere():
    references = set(re.findall(r"#/components/schemas/([\w.]+)", str(SPEC)))
    assert references and references <= SPEC["components"]["schemas"].keys()


async def test_both_are_served_without_a_key_and_without_another_host(engine, settings):
    from dataclasses import replace

    async with in_process(engine, replace(settings, api_keys=("some-secret-key",))) as client:
        assert (await client.get("/openapi.json")).json() == SPEC
        page = await client.get("/docs")
        assert page.headers["content-type"].startswith("text/html") and "openapi.json" in page.text
        assert not re.search(r"(?:https?:)?//\w", page.text), "no address of another host"
