"""What the README and the example show is what happens."""

import runpy
import sys
from pathlib import Path

from support.snippets import check_python

ROOT = Path(__file__).parents[3]


def test_the_readmes_snippets_print_what_it_says(client):
    assert check_python(ROOT / "integrations" / "weaviate" / "README.md", {"client": client}) == 6


def test_the_example_finds_the_right_function_and_resumes(stub, monkeypatch, capsys):
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")  # the client asks for a newer one of itself
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    script = str(ROOT / "examples" / "weaviate_hybrid.py")
    ports = ["--host", "127.0.0.1", "--port", str(stub.http_port), "--grpc-port", str(stub.grpc_port)]
    outputs = []
    for question in ("turn an object into JSON and save it", "keep results so that they are not computed twice"):
        monkeypatch.setattr(sys, "argv", [script, *ports, question])
        runpy.run_path(script, run_name="__main__")
        outputs.append(capsys.readouterr().out.splitlines())
    assert [lines[0] for lines in outputs] == [
        "8 written, 0 already there, 0 refused",
        "0 written, 8 already there, 0 refused",
    ]
    assert [lines[1].split()[1] for lines in outputs] == ["json.dump:", "functools.lru_cache:"]
    assert all(len(lines) == 4 for lines in outputs)
