"""The process: its start, its signals, its end. Each server here runs on a socket of its own."""

import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx
import numpy as np
import pytest

from support.servers import live_server
from tercet import Engine
from tercet.errors import TercetError
from tercet_server.app import create_app
from tercet_server.run import listening, server_config
from tercet_server.settings import Settings

pytestmark = pytest.mark.slow

PATH = "/v1/encode/tiny"


def flags(tiny, **more):
    return {"models": [tiny], "aliases": {"tiny": tiny}, "device": "cpu", "precision": "float32", **more}


SUITED = """
import gc, sys
from tercet_server import run
from tercet_server.settings import Sources
run.Server.run = lambda self, sockets: print(gc.get_freeze_count(), gc.get_threshold()[0], sys.getswitchinterval())
run.serve(Sources({"device": "cpu", "port": 0}))
"""


def test_a_server_looks_for_little_garbage_and_its_threads_take_short_turns():
    ran = subprocess.run([sys.executable, "-c", SUITED], check=True, capture_output=True, text=True)
    frozen, young, turn_s = map(float, ran.stdout.split())
    assert (frozen > 50_000, young, turn_s) == (True, 10_000, 0.0005)


def test_no_accepted_request_is_lost_when_the_server_stops_under_load(tiny):
    with Engine(device="cpu", precision="float32") as engine:
        expected = engine.encode(tiny, ["hello world"]).dense[0]
    answered, lost, stop = [], [], threading.Event()

    def call(url):
        with httpx.Client(base_url=url, timeout=60) as client:
            while not stop.is_set():
                try:
                    answer = client.post(PATH, json={"items": ["hello world"]})
                except httpx.ConnectError:
                    return
                except httpx.TransportError as error:
                    lost.append(repr(error))
                    return
                answered.append((answer.status_code, answer.json()["items"][0]["dense"]["values"]))

    with live_server(flags(tiny)) as server, ThreadPoolExecutor(8) as pool:
        callers = [pool.submit(call, server.url) for _ in range(8)]
        while len(answered) < 100:
            assert not lost
            time.sleep(0.01)
        server.signal(signal.SIGTERM)
        assert server.exit_status() == 0
        stop.set()
        for caller in callers:
            caller.result()
    assert lost == [] and {status for status, _ in answered} == {200}
    np.testing.assert_allclose([values for _, values in answered], np.tile(expected, (len(answered), 1)), atol=1e-5)


LONG = {"items": ["word " * 500] * 20_000}


@contextmanager
def busy(server):
    """Yield a long request that is under way."""
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(httpx.post, server.url + PATH, json=LONG, timeout=60)
        time.sleep(1)
        assert not answer.done()
        yield answer


def test_what_outlasts_the_drain_is_told_so(slow):
    with live_server(flags(slow, drain_s="1")) as server, busy(server) as answer:
        server.signal(signal.SIGTERM)
        assert answer.result().status_code == 503 and answer.result().json()["error"]["code"] == "shutting_down"
        assert int(answer.result().headers["retry-after"]) >= 1
        assert server.exit_status() == 0


def test_a_second_signal_stops_at_once(slow):
    with live_server(flags(slow, drain_s="600")) as server, busy(server) as answer:
        server.signal(signal.SIGTERM)
        while not any("a second signal" in line for line in server.log):
            time.sleep(0.01)
        server.signal(signal.SIGTERM)
        assert server.exit_status() == 128 + signal.SIGTERM
        with pytest.raises(httpx.TransportError):
            answer.result()


def test_a_hangup_reads_the_settings_again(tiny, tmp_path):
    config = tmp_path / "tercet.toml"
    config.write_text("")
    with live_server({**flags(tiny), "config": str(config), "aliases": None}) as server:
        assert httpx.post(server.url + PATH, json={"items": ["a"]}).status_code != 200
        config.write_text(f"aliases = {{tiny = '{tiny}'}}\ndrain_s = 1")
        server.signal(signal.SIGHUP)
        while not any("settings reloaded" in line for line in server.log):
            time.sleep(0.01)
        assert "drain_s" in server.log[-1]
        assert httpx.post(server.url + PATH, json={"items": ["a"]}).status_code == 200
        config.write_text("wrong = 1")
        server.signal(signal.SIGHUP)
        while not any("nothing was reloaded" in line for line in server.log):
            time.sleep(0.01)
        assert httpx.post(server.url + PATH, json={"items": ["a"]}).status_code == 200


def test_idle_connections_are_kept_for_as_long_as_database_clients_keep_theirs(engine, settings):
    config = server_config(create_app(engine, settings), settings)
    assert config.timeout_keep_alive == settings.keep_alive_s >= 120


def test_a_port_in_use_is_said_so():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(TercetError, match=f"127.0.0.1:{port} is in use; .* --port"):
            listening(Settings(port=port))
    with pytest.raises(TercetError, match="cannot listen on"):
        listening(Settings(host="192.0.2.1"))
