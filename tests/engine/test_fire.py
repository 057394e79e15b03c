"""Residency under fire: many models, little room, many threads; every vector is checked against its own model's."""

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from support.tiny_models import mean_vectors, save_bert
from tercet import CheckpointError, Engine
from tercet.engine.events import ResidencyEvent

MODELS, FITTING, THREADS = 12, 3, 32
TEXTS = ["hello world", "the lazy dog", "numbers 1999 and words", "café", "", "a " * 40, "brown fox jumps over"]


class Watch:
    """Checks the budget and the order of eviction at every event."""

    def __init__(self):
        self.budget, self.faults, self.evictions = 0, [], 0

    def __call__(self, event):
        if not isinstance(event, ResidencyEvent):
            return
        if event.used_bytes > self.budget:
            self.faults.append(f"{event.used_bytes} bytes of {self.budget} at {event.kind} {event.model}")
        if event.kind == "evict":
            self.evictions += 1
            free = {
                name: last_used
                for name, (state, last_used, leases, pinned) in event.records.items()
                if state == "resident" and not leases and not pinned
            }
            if min(free, key=free.get) != event.model:
                self.faults.append(f"{event.model} was evicted and not the least recently used of {free}")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Return {path: right vectors} of models that differ only in their weights."""
    folder = tmp_path_factory.mktemp("models")
    references = {str(folder / f"m{i}"): save_bert(folder / f"m{i}", seed=i) for i in range(MODELS)}
    return {name: mean_vectors(reference, TEXTS) for name, reference in references.items()}


@pytest.fixture(scope="module")
def corrupt(tmp_path_factory, models):
    """Return a model one of whose tensors has the wrong shape."""
    folder = tmp_path_factory.mktemp("corrupt")
    save_bert(folder, seed=99)
    weights = load_file(folder / "model.safetensors")
    weights["encoder.layer.0.output.dense.weight"] = np.zeros((3, 3), np.float32)
    save_file(weights, folder / "model.safetensors")
    return str(folder)


@pytest.mark.parametrize("seconds", [3, pytest.param(60, marks=pytest.mark.slow)])
def test_twelve_models_of_which_three_fit(models, corrupt, seconds):
    watch = Watch()
    with Engine(precision="float32") as probe:
        size = probe.load(next(iter(models))).size_bytes
    watch.budget = size * FITTING + size // 2
    counts = dict.fromkeys([*models, corrupt], 0)
    lock, until = threading.Lock(), time.monotonic() + seconds

    def run(worker):
        rng = random.Random(worker)
        while time.monotonic() < until:
            name = rng.choice([*models, corrupt])
            places = rng.choices(range(len(TEXTS)), k=rng.randint(1, 4))
            texts = [TEXTS[i] for i in places]
            if name == corrupt:
                with pytest.raises(CheckpointError, match=r"encoder|layers\.0\.ffn\.down|do not fit"):
                    engine.encode(name, texts, timeout_s=30)
            else:
                vectors = engine.encode(name, texts, timeout_s=30).dense
                np.testing.assert_allclose(vectors, models[name][places], atol=2e-5)
            with lock:
                counts[name] += 1

    with Engine(precision="float32", memory_budget=watch.budget) as engine:
        engine.observers.add(watch)
        with ThreadPoolExecutor(THREADS) as pool:
            for future in [pool.submit(run, worker) for worker in range(THREADS)]:
                future.result(seconds + 60)
        infos = {info.id: info for info in engine.models()}
    assert not watch.faults
    assert watch.evictions >= MODELS - FITTING
    assert min(counts.values()) > 0
    assert infos[corrupt].state == "failed" and "do not fit" in infos[corrupt].error
    assert all(infos[name].loads >= 1 and infos[name].load_ms > 0 for name in models)
    print(f"{sum(counts.values())} calls, {watch.evictions} evictions in {seconds} s")
