"""Compiled kernels in files: read if they are whole and right, made anew if not, never in the way."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tercet.nn.jit import objects
from tercet.nn.jit.code import Kernel, vector_shape
from tercet.nn.jit.product_kernel import panels_kernel

if vector_shape() is None:
    pytest.skip("no kernels are compiled here", allow_module_level=True)

COMPILES_ONE = """
from tercet.nn.jit import code, lookup_kernel
compiled = []
finish = code.Code.finish
code.Code.finish = lambda self: compiled.append(self) or finish(self)
from tercet.checkpoints.word_table import WordTable
import numpy as np
table = WordTable()
table.add([b"one"], [np.array([7])])
print(len(compiled), table.look_up([b"one one"])[0].tolist())
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "tercet" / "kernels"


def counted(code: bytes = b"code") -> tuple[list[int], Callable[[], bytes]]:
    made: list[int] = []

    def compile_() -> bytes:
        made.append(1)
        return code

    return made, compile_


def test_what_one_process_compiled_another_reads(folder: Path) -> None:
    run = [sys.executable, "-c", COMPILES_ONE]
    said = [subprocess.run(run, check=True, capture_output=True, text=True).stdout for _ in range(2)]
    assert said == ["1 [7, 7]\n", "0 [7, 7]\n"]
    assert len([*folder.iterdir()]) == 1 and folder.stat().st_mode & 0o77 == 0


def test_names_have_files_of_their_own(folder: Path) -> None:
    for name in ("one", "other"):
        made, compile_ = counted(name.encode())
        assert [objects.kept(name, compile_) for _ in range(2)] == [name.encode()] * 2 and len(made) == 1
    assert len([*folder.iterdir()]) == 2


@pytest.mark.parametrize(
    "damage", [lambda content: content[:-1], lambda content: b"", lambda content: b"\0" + content[1:]]
)
def test_a_damaged_file_is_made_anew(damage: Callable[[bytes], bytes], folder: Path) -> None:
    objects.kept("kernel", counted()[1])
    (file,) = folder.iterdir()
    file.write_bytes(damage(file.read_bytes()))
    made, compile_ = counted()
    assert [objects.kept("kernel", compile_) for _ in range(2)] == [b"code"] * 2 and len(made) == 1


def test_another_processor_text_or_library_has_other_files(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    objects.kept("kernel", counted()[1])
    monkeypatch.setattr(objects, "_maker", lambda: "another")
    made, compile_ = counted(b"other")
    assert objects.kept("kernel", compile_) == b"other" and len(made) == 1


def test_another_users_file_is_not_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    objects.kept("kernel", counted()[1])
    monkeypatch.setattr(objects.os, "getuid", lambda: -1)
    assert objects.kept("kernel", counted(b"own")[1]) == b"own"


def test_without_a_place_to_write_kernels_are_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    made, compile_ = counted()
    assert [objects.kept("kernel", compile_) for _ in range(2)] == [b"code"] * 2 and len(made) == 2


def test_a_user_without_a_home_compiles(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(objects.Path, "home", homeless)
    assert objects.kept("kernel", counted()[1]) == b"code"


def test_a_full_disk_leaves_nothing_behind(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, target: Path) -> Path:
        raise OSError("no space left on device")

    monkeypatch.setattr(objects.Path, "replace", full)
    assert objects.kept("kernel", counted()[1]) == b"code" and not [*folder.iterdir()]


def test_a_kernel_of_other_arguments_is_another(folder: Path) -> None:
    kernel = Kernel(panels_kernel.write)
    assert kernel(1) is kernel(1) and kernel(1) is not kernel(2)
    assert len([*folder.iterdir()]) == 2


def test_what_is_not_told_apart_by_its_text_is_not_kept(folder: Path) -> None:
    names: list[str] = []
    kernel = Kernel(lambda code, *arguments: names.append(str(arguments)))
    assert kernel(1) is kernel(1) and kernel(1) is not kernel("1") and names == ["(1,)", "('1',)"]
    assert not folder.exists() or not [*folder.iterdir()]
