"""The end of a process amid work for an engine on daemon threads: neither an abort nor a word, and soon."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from support.tiny_models import save_bert
from tercet.engine.guests import Guests
from tercet.errors import EngineClosedError
from tercet.nn.jit.code import vector_shape

# Each defines what a daemon thread does, and sets `begun` when the process is to end.
OPENING = """
from tercet.checkpoints import load
measure = load.size_bytes
def measured(*given):
    begun.set()
    return [measure(*given) for _ in range(30)][-1]
load.size_bytes = measured
def work():
    engine.encode(model, "hello world")
"""
QUERIES = """
import torch
from tercet.nn.programs import Program
run, many = Program.run, torch.ones(100_000)
def slowly(self, batch):
    if threading.current_thread().daemon and not threading.current_thread().name.startswith("tercet"):
        begun.set()
        for _ in range(3_000):
            many.add_(1)
    return run(self, batch)
Program.run = slowly
def work():
    while True:
        engine.encode(model, "hello world")
"""
BULK = """
def work():
    engine.encode(model, ["hello world " * 20] * 50_000, progress=lambda done, size: done and begun.set())
"""
SETTLING = """
def work():
    engine.encode(model, ["hello world " * 20] * 50)
    begun.set()
"""
PROCESS = """
import sys, threading
from tercet import Engine, EngineClosedError
model, begun = sys.argv[1], threading.Event()
engine = Engine("cpu", "float32")
{work}
def quietly():
    try:
        work()
    except EngineClosedError:
        pass
for _ in range(3):
    threading.Thread(target=quietly, daemon=True).start()
assert begun.wait(60)
"""


needs_programs = pytest.mark.skipif(vector_shape() is None, reason="this processor has no vectors for programs")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("exit")
    save_bert(folder, hidden_size=256, num_hidden_layers=6, num_attention_heads=4, intermediate_size=1024)
    return str(folder)


@pytest.mark.parametrize(
    "work",
    [
        pytest.param(OPENING, id="opening"),
        pytest.param(QUERIES, id="queries", marks=[pytest.mark.slow, needs_programs]),
        pytest.param(BULK, id="bulk", marks=pytest.mark.slow),
        pytest.param(SETTLING, id="settling", marks=pytest.mark.slow),
    ],
)
def test_a_process_ends_amid_work(model: str, work: str) -> None:
    program = PROCESS.format(work=work)
    ended = subprocess.run([sys.executable, "-c", program, model], capture_output=True, timeout=120, check=False)
    assert (ended.returncode, ended.stderr.decode(), ended.stdout) == (0, "", b"")


FORKED = """
import os, sys
from tercet import Engine, EngineClosedError
engine = Engine("cpu", "float32")
engine.encode(sys.argv[1], ["hello world"] * 5)
if child := os.fork():
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
for ask, *given in (engine.encode, sys.argv[1], "hello"), (engine.load, sys.argv[1]), (engine.encode, "bm25", "a"):
    try:
        ask(*given)
    except EngineClosedError as error:
        print(error)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_process_is_told_that_the_engine_is_not_its_own(model: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", FORKED, model], capture_output=True, timeout=120, check=False, text=True
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert [line.partition("; ")[2] for line in ended.stdout.splitlines()] == ["make an Engine in each process"] * 3


def test_the_last_guest_is_waited_for_and_none_comes_in_after() -> None:
    guests, inside, go_on = Guests(), threading.Event(), threading.Event()

    def visit() -> None:
        with guests:
            with guests:
                inside.set()
            go_on.wait(30)

    with ThreadPoolExecutor(1) as pool:
        visitor = pool.submit(visit)
        assert inside.wait(30)
        with guests:  # who waits does not wait for itself
            assert not guests.leave(0.05)
        go_on.set()
        assert guests.leave(30)
        visitor.result(30)
    with pytest.raises(EngineClosedError, match="make a new Engine"), guests:
        pass
