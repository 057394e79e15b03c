"""Health: alive, ready only after real forward passes, not ready while stopping or without a device thread."""

import shutil

import anyio
import pytest

from support.servers import client_of, in_process
from support.tiny_models import save_bert
from tercet import Engine
from tercet_server.app import create_app
from tercet_server.settings import Settings

pytestmark = pytest.mark.anyio


async def test_ready_means_that_every_model_has_run(tiny):
    with Engine(device="cpu", precision="float32") as engine:
        app = create_app(engine, Settings(models=(tiny, "bm25")))
        async with client_of(app) as client, app.router.lifespan_context(app):
            early = await client.get("/readyz")
            assert early.status_code == 503 and early.headers["retry-after"] == "1"
            assert early.json() == {"status": "starting", "waiting": {tiny: "loading", "bm25": "loading"}}
            assert (await client.get("/healthz")).json() == {"status": "ok"}
            with anyio.fail_after(60):
                while (answer := await client.get("/readyz")).status_code == 503:
                    assert answer.json()["status"] == "starting"
                    await anyio.sleep(0.01)
            assert answer.json() == {"status": "ready", "waiting": {}}
            assert next(info for info in engine.models() if info.id == tiny).hits == 1
            app.state.service.readiness.drain()
            stopping = await client.get("/readyz")
            assert stopping.status_code == 503 and stopping.json()["status"] == "draining"
            assert "connection" not in (alive := await client.get("/healthz")).headers and alive.status_code == 200
            app.state.service.readiness.close()
            assert (await client.get("/healthz")).headers["connection"] == "close"


async def test_a_model_that_cannot_load_keeps_the_server_from_being_ready_and_is_logged(engine, tmp_path, caplog):
    settings = Settings(models=("no/such", str(tmp_path)))
    app = create_app(engine, settings)
    async with client_of(app) as client, app.router.lifespan_context(app):
        with anyio.fail_after(30):
            while "loading" in (answer := await client.get("/readyz")).json()["waiting"].values():
                await anyio.sleep(0.01)
    assert answer.status_code == 503
    assert answer.json()["waiting"]["no/such"] == "model_not_found"
    assert "no/such is not ready" in caplog.text


async def test_a_server_without_a_device_thread_is_not_ready(tiny):
    with Engine(device="cpu", precision="float32") as engine:
        async with in_process(engine, Settings(models=(tiny,))) as client:
            assert (await client.get("/readyz")).status_code == 200
            engine.close()
            dead = await client.get("/readyz")
            assert dead.status_code == 503 and dead.json()["status"] == "dead"
            refused = await client.post(f"/m/x/v1/encode/{tiny.strip('/')}", json={"items": ["a"]})
            assert refused.status_code >= 400


async def test_a_reload_warms_new_models_up_and_the_server_stays_ready(engine, tiny, tmp_path):
    save_bert(tmp_path / "second", seed=1)
    second = str(tmp_path / "second")
    current = [Settings(models=(tiny,))]
    async with in_process(engine, current[0], reread=lambda: current[0]) as client:
        current[0] = Settings(models=(tiny, second), aliases={"second": second})
        assert (await client.post("/v1/reload")).status_code == 200
        with anyio.fail_after(60):
            while (answer := await client.get("/readyz")).json()["waiting"]:
                assert answer.status_code == 200
                await anyio.sleep(0.01)
        assert (await client.get("/v1/models/second/load")).json()["state"] == "resident"
    shutil.rmtree(second)
