"""Calls whose caller runs them: the same bytes, nothing lost whatever goes wrong, and only where it may."""

import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from support.tiny_models import save_bert
from tercet import Engine
from tercet.engine.events import BatchEvent
from tercet.errors import TercetError
from tercet.nn.jit.code import vector_shape
from tercet.nn.programs import Program

if vector_shape() is None:
    pytest.skip("this processor has no vectors that programs are for", allow_module_level=True)
TEXT = "hello world"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("here")
    save_bert(folder, hidden_size=64, num_attention_heads=4, intermediate_size=128)
    return str(folder)


@pytest.fixture
def engine(model):
    """One that has run a program of the model's, whose batches tell on which thread they ran."""
    with Engine("cpu", "float32") as made:
        made.ran_on = []
        made.observers.add(lambda e: isinstance(e, BatchEvent) and made.ran_on.append(threading.current_thread()))
        until = time.monotonic() + 30
        while threading.main_thread() not in made.ran_on and time.monotonic() < until:
            made.encode(model, TEXT)
        yield made


def ran_on(engine, encode):
    """Return the threads that the batches of a call ran on, and what it gave."""
    time.sleep(0.05)  # workers tell of a batch after its callers have their rows
    engine.ran_on.clear()
    result, until = encode(), time.monotonic() + 30
    while not engine.ran_on and time.monotonic() < until:
        time.sleep(0.01)
    return result, list(engine.ran_on)


def test_a_short_call_runs_on_its_callers_thread_and_gives_the_bytes_of_a_worker(engine, model):
    several = [TEXT] * 5
    here, threads = ran_on(engine, lambda: engine.encode(model, TEXT))
    assert threads == [threading.current_thread()]
    there, threads = ran_on(engine, lambda: engine.encode(model, several))
    assert threads and threading.current_thread() not in threads
    assert all(np.array_equal(row, here["dense"]) for row in there.dense)
    assert here.tokens == there.tokens[0] and not here.truncated


def test_scores_of_few_texts_do_too(engine, model):
    scores, threads = ran_on(engine, lambda: engine.score(model, TEXT, [TEXT, "again"]))
    assert threading.current_thread() in threads and scores.order[0] == 0


def test_callers_side_by_side_all_get_their_own(engine, model):
    texts = [f"{word} {other}" for word in ("hello", "world", "again") for other in ("one", "two", "three", "four")]
    alone = [engine.encode(model, text)["dense"] for text in texts]
    with ThreadPoolExecutor(6) as pool:
        results = list(pool.map(lambda text: engine.encode(model, text, timeout_s=60)["dense"], texts * 40))
    assert all(map(np.array_equal, results, alone * 40))
    assert engine.state().waiting == {} and engine.state().restarts == 0


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_what_goes_wrong_reaches_the_caller_and_stops_nobody_else(engine, model, monkeypatch, error):
    expected = engine.encode(model, TEXT)["dense"]

    def fail(*_):
        raise error("mid-way")

    monkeypatch.setattr(Program, "run", fail)
    with pytest.raises(TercetError if error is ValueError else error, match="mid-way"):
        engine.encode(model, TEXT)
    monkeypatch.undo()
    assert np.array_equal(engine.encode(model, [TEXT] * 5).dense[0], expected)
    assert np.array_equal(engine.encode(model, TEXT)["dense"], expected)
    until = time.monotonic() + 30
    while not engine.unload(model) and time.monotonic() < until:  # a lease that was kept would hold it
        time.sleep(0.01)
    assert engine.state().used_bytes == 0


def test_a_model_that_is_not_there_is_loaded_by_a_worker(engine, model):
    expected = engine.encode(model, TEXT)["dense"]
    while not engine.unload(model):
        time.sleep(0.01)
    again, threads = ran_on(engine, lambda: engine.encode(model, TEXT))
    assert threading.current_thread() not in threads and np.array_equal(again["dense"], expected)


def test_a_closed_engine_runs_nothing(engine, model):
    engine.close()
    with pytest.raises(TercetError, match="closed"):
        engine.encode(model, TEXT)


SHALLOW = """
import sys, threading
import numpy as np
threading.stack_size(256 << 10)
from tercet import Engine
engine, given = Engine("cpu", "float32"), []
def work():
    for texts in (["hello world"], ["hello world " * 30], ["hello world " * 30] * 50):
        given.append(np.stack(list(engine.encode(sys.argv[1], texts).dense)))
for _ in range(3):
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
assert len(given) == 9 and all(np.array_equal(given[at], given[at - 3]) for at in range(3, 9))
print(threading.stack_size())
"""


def test_a_callers_stack_may_be_too_shallow_for_what_kernels_lay_there(model):
    ended = subprocess.run([sys.executable, "-c", SHALLOW, model], capture_output=True, timeout=120, check=False)
    assert (ended.returncode, ended.stderr.decode(), ended.stdout) == (0, "", b"262144\n")
