"""A load of many connections over more models than fit: nothing wrong, nothing lost, places are freed."""

import asyncio
import random
import time

import httpx
import numpy as np
import pytest

from support.servers import live_server
from support.tiny_models import mean_vectors, save_bert
from tercet import Engine

MODELS, FITTING, CONNECTIONS, SECONDS = 4, 2, 200, 60
TEXTS = ["hello world", "the lazy dog", "numbers 1999 and words", "café", "", "a " * 40, "brown fox jumps over"]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Return {alias: (path, right vectors)} of models that differ only in their weights."""
    folder = tmp_path_factory.mktemp("models")
    references = {f"m{i}": save_bert(folder / f"m{i}", seed=i) for i in range(MODELS)}
    return {name: (str(r.directory), mean_vectors(r, TEXTS)) for name, r in references.items()}


@pytest.fixture(scope="module")
def budget(models):
    """Return bytes for two of the models and half of a third."""
    path, _ = models["m0"]
    with Engine(device="cpu", precision="float32") as engine:
        size = engine.load(path).size_bytes
    return size * FITTING + size // 2


def flags(models, budget, **more):
    aliases = {name: path for name, (path, _) in models.items()}
    return {"aliases": aliases, "device": "cpu", "precision": "float32", "memory_budget": str(budget), **more}


class Tally:
    """What came back: latencies of right answers, refusals by status, and everything that was wrong."""

    def __init__(self):
        self.latencies, self.refused, self.faults = [], {}, []

    def count(self, answer, expected, seconds):
        if answer.status_code == 200:
            vectors = [item["dense"]["values"] for item in answer.json()["items"]]
            if np.allclose(vectors, expected, atol=2e-5):
                self.latencies.append(seconds)
            else:
                self.faults.append("a wrong vector")
        elif answer.status_code in (429, 503) and float(answer.headers.get("retry-after", 0)) > 0:
            self.refused[answer.status_code] = self.refused.get(answer.status_code, 0) + 1
        else:
            self.faults.append(f"{answer.status_code}: {answer.text[:200]}")


async def call(client, models, rng, tally, until):
    while time.monotonic() < until and len(tally.faults) < 5:
        name = rng.choice(list(models))
        places = rng.choices(range(len(TEXTS)), k=rng.randint(1, 3))
        start = time.perf_counter()
        answer = await client.post(f"/v1/encode/{name}", json={"items": [TEXTS[i] for i in places]})
        tally.count(answer, models[name][1][places], time.perf_counter() - start)


async def load(url, models, seconds):
    tally, until = Tally(), time.monotonic() + seconds
    limits = httpx.Limits(max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS)
    async with httpx.AsyncClient(base_url=url, limits=limits, timeout=60) as client:
        await asyncio.gather(*(call(client, models, random.Random(i), tally, until) for i in range(CONNECTIONS)))
    return tally


@pytest.mark.slow
def test_two_hundred_connections_over_four_models_of_which_two_fit(models, budget):
    with live_server(flags(models, budget)) as server:
        tally = asyncio.run(load(server.url, models, SECONDS))
        assert httpx.get(f"{server.url}/readyz").status_code == 200
    assert not tally.faults
    assert len(tally.latencies) > CONNECTIONS
    p50, p99 = np.percentile(tally.latencies, [50, 99]) * 1e3
    print(f"{len(tally.latencies)} answers in {SECONDS} s, p50 {p50:.0f} ms, p99 {p99:.0f} ms, refused {tally.refused}")


@pytest.mark.slow
def test_a_small_queue_refuses_politely_and_recovers(models, budget):
    with live_server(flags(models, budget, max_queue_tokens=200)) as server:
        tally = asyncio.run(load(server.url, models, 10))
        assert not tally.faults
        assert tally.refused.get(429, 0) > 0 and tally.latencies
        quiet = httpx.post(f"{server.url}/v1/encode/m1", json={"items": TEXTS}, timeout=30)
        assert quiet.status_code == 200
