"""Admin: models loaded, unloaded, pinned and described by name; settings read again."""

from dataclasses import replace

import anyio
import pytest

from support.servers import in_process
from tercet import Engine
from tercet.errors import InvalidInputError
from tercet_server.settings import Settings

pytestmark = pytest.mark.anyio
AT = "/v1/models/org/tiny"


@pytest.fixture
def own_engine():
    with Engine(device="cpu", precision="float32") as engine:
        yield engine


@pytest.fixture
async def client(own_engine, tiny):
    async with in_process(own_engine, Settings(aliases={"org/tiny": tiny})) as client:
        yield client


async def settled(client, action, **choices):
    """Post until the model is no longer in use."""
    with anyio.fail_after(30):
        while (answer := await client.post(f"{AT}/{action}", **choices)).status_code == 429:
            await anyio.sleep(0.01)
    return answer


async def test_a_model_is_loaded_described_and_dropped(client):
    unknown = (await client.get(f"{AT}/load")).json()
    assert unknown["state"] == "available" and unknown["resident_bytes"] == 0
    loaded = (await client.post(f"{AT}/load")).json()
    assert loaded["state"] == "resident" and loaded["resident_bytes"] == loaded["size_bytes"] > 0
    assert (await client.get(f"{AT}/load")).json()["load_ms"] == loaded["load_ms"] > 0
    dropped = await settled(client, "unload")
    assert dropped.json()["state"] == "available" and dropped.json()["resident_bytes"] == 0


async def test_a_load_need_not_be_waited_for(client):
    answer = await client.post(f"{AT}/load", params={"wait": "false"})
    assert answer.status_code == 200 and answer.json()["state"] in ("available", "loading", "resident")
    with anyio.fail_after(30):
        while (await client.get(f"{AT}/load")).json()["state"] != "resident":
            await anyio.sleep(0.01)


async def test_a_pin_stays_until_it_is_taken_off(client):
    early = await client.post(f"{AT}/pin", json={"pinned": False})
    assert early.status_code == 404
    assert (await client.post(f"{AT}/pin", json={})).json()["pinned"] is True
    assert (await client.get(f"{AT}/load")).json()["pinned"] is True
    assert (await client.post(f"{AT}/pin", json={"pinned": False})).json()["pinned"] is False
    assert (await client.post(f"{AT}/pin", json={"pined": True})).status_code == 400


async def test_a_model_that_is_not_there_is_a_404(client):
    assert (await client.post("/v1/models/no/such/load")).status_code == 404
    assert (await client.post("/v1/models/a/b/c/load")).status_code == 400


async def test_a_reload_takes_over_what_may_change_and_names_the_rest(own_engine, tiny):
    before = Settings(aliases={"old": tiny}, api_keys=("admin first-key",))
    after = replace(before, aliases={"new": tiny}, api_keys=("admin second-key",), port=1, drain_s=5.0)
    source = [before]
    async with in_process(own_engine, before, reread=lambda: source[0]) as client:
        first, second = ({"X-API-Key": f"{name}-key"} for name in ("first", "second"))
        source[0] = after
        answer = await client.post("/v1/reload", headers=first)
        assert answer.json() == {"models": [], "aliases": {"new": tiny}, "restart": ["port", "drain_s"]}
        assert (await client.post("/v1/reload", headers=first)).status_code == 401
        assert (await client.post("/v1/models/new/load", headers=second)).status_code == 200
        assert (await client.post("/v1/models/old/load", headers=second)).status_code == 404


async def test_a_wrong_reload_changes_nothing(own_engine, tiny):
    def reread():
        raise InvalidInputError("the file is wrong")

    async with in_process(own_engine, Settings(aliases={"org/tiny": tiny}), reread=reread) as client:
        assert (await client.post("/v1/reload")).status_code == 400
        assert (await client.post(f"{AT}/load")).status_code == 200
