"""What goes wrong on the way: a process killed in the middle, a server that goes away, a model that fails."""

import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import lancedb
import numpy as np
import pytest

from support.lancedb_ingest import BATCH
from support.lancedb_tables import BERT, rows
from support.servers import live_server
from support.tiny_models import save_bert
from tercet import Client, EngineClosedError, OverloadedError, TransportError, VectorSpec
from tercet_lancedb import Embedded, embed_table
from tercet_lancedb.patience import encoded_patiently

TESTS = Path(__file__).parents[2]
DENSE = VectorSpec(dense=BERT)


def ingest(place, model, count, kill_after=None):
    """Run an ingest in a process of its own, killed once so many rows are written; return its last word."""
    command = [sys.executable, "-m", "support.lancedb_ingest", str(place), str(model), str(count)]
    process = subprocess.Popen(
        command, cwd=TESTS, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(TESTS)}
    )
    told = (0, 0)
    with process:
        for line in process.stdout:
            told = tuple(map(int, line.split()))
            if kill_after is not None and told[0] >= kill_after:
                process.send_signal(signal.SIGKILL)
                break
    assert process.returncode == (0 if kill_after is None else -signal.SIGKILL)
    return told


@pytest.mark.slow
def test_a_killed_ingest_goes_on_with_every_row_once_and_no_vector_of_another_text(engine, tmp_path):
    model, place, count = tmp_path / "model", tmp_path / "db", 20_000
    save_bert(model)
    written, _ = ingest(place, model, count, kill_after=9_000)
    rest, unchanged = ingest(place, model, count)
    assert written >= 9_000 and written % BATCH == 0
    assert unchanged >= written and rest + unchanged == count  # what was written is not embedded again
    found = lancedb.connect(place).open_table("docs").to_arrow().sort_by("n")
    assert found["id"].to_pylist() == rows(count)["id"].to_pylist()
    assert found["text"].to_pylist() == rows(count)["text"].to_pylist()
    expected = engine.encode(str(model), found["text"].to_pylist()).dense
    stored = found["vector"].combine_chunks().flatten().to_numpy().reshape(count, -1)
    np.testing.assert_allclose(stored, expected, atol=1e-5)


@pytest.mark.slow
def test_a_server_that_is_away_for_ten_seconds_loses_nothing(cache, engine, db):
    flags = {"models": BERT, "cache_dir": str(cache), "device": "cpu", "precision": "float32"}
    away, back, seen = [], [], []

    def progress(done):
        seen.append(done)
        if len(seen) == 2:
            away.append(time.monotonic())
            first.stop()

    with live_server(flags) as first, Client(first.url, retries=1) as client:
        port = str(first.port)

        def restart():
            while not away:
                time.sleep(0.05)
            time.sleep(10)
            with live_server({**flags, "port": port}) as again:
                back.append(again)
                finished.wait(120)

        finished = threading.Event()
        restarting = threading.Thread(target=restart)
        restarting.start()
        table = embed_table(db, "docs", rows(400), DENSE, client, batch_size=40, progress=progress, patience_s=90)
        finished.set()
        restarting.join()
    assert back and seen[-1] == Embedded(400, 0)
    found = table.to_arrow().sort_by("n")
    assert found["id"].to_pylist() == rows(400)["id"].to_pylist()
    expected = engine.encode(BERT, found["text"].to_pylist()).dense
    np.testing.assert_allclose(np.array(found["vector"].to_pylist()), expected, atol=1e-5)


@pytest.mark.slow
def test_a_server_that_stays_away_is_an_error_that_says_so_and_the_rest_comes_later(cache, engine, db):
    flags = {"models": BERT, "cache_dir": str(cache), "device": "cpu", "precision": "float32"}
    with live_server(flags) as server, Client(server.url, retries=1) as client:

        def progress(done):
            server.stop()

        with pytest.raises(TransportError) as caught:
            embed_table(db, "docs", rows(90), DENSE, client, batch_size=30, progress=progress, patience_s=1)
    written = db.open_table("docs").count_rows()
    assert written in (30, 60) and f"{written} rows were written to 'docs' by this call" in caught.value.__notes__[0]
    seen = []
    embed_table(db, "docs", rows(90), DENSE, engine, batch_size=30, progress=seen.append)
    assert seen[-1] == Embedded(90 - written, written)


class Failing:
    """The engine, which fails so many times first."""

    def __init__(self, engine, errors):
        self.engine, self.errors = engine, iter(errors)

    def __getattr__(self, name):
        return getattr(self.engine, name)

    def encode(self, *arguments, **keywords):
        for error in itertools.islice(self.errors, 1):
            raise error
        return self.engine.encode(*arguments, **keywords)


def test_what_may_pass_is_waited_for_and_what_cannot_is_not(engine, db):
    busy = Failing(engine, [OverloadedError("busy", retry_after_s=0.01)])
    assert embed_table(db, "docs", rows(3), DENSE, busy).count_rows() == 3
    closed = Failing(engine, [EngineClosedError("closed")])
    with pytest.raises(EngineClosedError):
        embed_table(db, "docs", rows(6), DENSE, closed)
    wrong = Failing(engine, [ValueError("wrong")])
    with pytest.raises(ValueError, match="wrong") as caught:
        embed_table(db, "docs", rows(6), DENSE, wrong)
    assert caught.value.__notes__ and db.open_table("docs").count_rows() == 3


def test_patience_ends(engine):
    tried = []

    def call():
        tried.append(time.monotonic())
        raise OverloadedError("busy")

    with pytest.raises(OverloadedError):
        encoded_patiently(engine, call, 0.6)
    assert len(tried) == 2 and tried[1] - tried[0] >= 0.25
    with pytest.raises(OverloadedError):
        encoded_patiently(engine, call, 0)
    assert len(tried) == 3
