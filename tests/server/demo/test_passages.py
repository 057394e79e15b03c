import ast
from pathlib import Path

import pytest

from tercet_server.demo.passages import Passage, read_passages, standard_library

SOURCES = {
    "zoo.py": '''"""Animals and their cages.\n\nMore about zoos."""
class Cage(Box):
    def __init__(self, size, *, locked=True, **rest): ...
    def open(self): "Let it out."
    def _hinge(self): "Private."
    @property
    def size(self): "How big it is."
    @size.setter
    def size(self, value): ...
    def nothing(self): ...
class HTTPAnimal:
    """One that answers."""
    class Legs:
        "Inside."
async def feed(animals: list[int], /, every_s: float = 1.5) -> None:
    """Give food."""
def _private(): "Private."
def undocumented(): ...
''',
    "pack/__init__.py": '"""A package."""',
    "pack/part.py": "def f(): 'Does f.'",
    "pack/_hidden.py": "def g(): 'Hidden.'",
    "pack/tests/test_part.py": "def t(): 'A test.'",
    "site-packages/other.py": "def o(): 'Installed.'",
    "template.py": "class {{ name }}: pass",
    "strings.py": r"def s(): 'an odd \d escape'",
}


@pytest.fixture
def passages(tmp_path: Path) -> dict[str, Passage]:
    for name, source in SOURCES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    return {passage.path: passage for passage in read_passages(tmp_path)}


def test_public_names_with_something_to_say_become_passages(passages: dict[str, Passage]) -> None:
    assert list(passages) == [
        *("pack", "pack.part.f", "strings.s", "zoo", "zoo.Cage", "zoo.Cage.open", "zoo.Cage.size"),
        *("zoo.HTTPAnimal", "zoo.HTTPAnimal.Legs", "zoo.feed"),
    ]


def test_signatures_are_the_callers(passages: dict[str, Passage]) -> None:
    assert passages["zoo.Cage"].signature == "(size, *, locked=True, **rest)"
    assert passages["zoo.Cage.open"].signature == "()"
    assert passages["zoo.feed"].signature == "(animals: list[int], /, every_s: float=1.5)"
    assert passages["zoo"].signature == passages["zoo.HTTPAnimal"].signature == ""


def test_a_class_without_docstring_tells_of_its_module_and_members(passages: dict[str, Passage]) -> None:
    assert passages["zoo.Cage"].doc == "Animals and their cages.\nMembers: open, size, nothing"
    assert passages["zoo.Cage.size"].doc == "How big it is."


def test_text_holds_the_name_in_words_and_as_written(passages: dict[str, Passage]) -> None:
    assert passages["zoo.Cage.open"].text == "zoo Cage open: zoo.Cage.open()\nLet it out."
    assert passages["zoo.HTTPAnimal"].text.startswith("zoo HTTPAnimal: zoo.HTTPAnimal\nOne")
    assert passages["zoo"].summary == "Animals and their cages."


@pytest.mark.slow
def test_the_standard_library_has_thousands_of_passages_without_importing_it() -> None:
    passages = {passage.path: passage for passage in read_passages(standard_library())}
    assert len(passages) > 3000
    assert {"csv.DictReader", "threading.Timer", "tempfile.TemporaryDirectory", "difflib.unified_diff"} <= set(passages)
    assert not any(path.startswith(("test.", "idlelib.", "encodings.")) for path in passages)
    assert all(ast.unparse(ast.parse(f"def f{p.signature or '()'}: ...")) for p in passages.values())
