"""The shape of the tree: sizes, repetition, and what does not belong in tracked files."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("core", "server", "integrations", "tests", "benchmarks", "examples", "docs")
STORES = ("chroma", "lancedb", "qdrant", "weaviate")
SOURCES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
SHIPPED = [path for path in SOURCES if path.relative_to(ROOT).parts[0] in ("core", "server", "integrations")]
TEXTS = [path for path in ROOT.iterdir() if path.is_file() and not path.name.startswith(".coverage")] + [
    path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.suffix in (".py", ".md", ".toml", ".txt")
]

LONGEST_FILE, LONGEST_FUNCTION, BLOCK = 300, 60, 6


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def code_lines(path: Path) -> list[tuple[int, str]]:
    """Return the numbered lines that carry meaning: no blanks, comments, imports, docstrings or lone brackets."""
    source = path.read_text(encoding="utf-8")
    tree = ast.parse(source)
    skipped = {
        line
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str))
        for line in range(node.lineno, node.end_lineno + 1)
    }
    lines = ((i, line.strip()) for i, line in enumerate(source.splitlines(), start=1) if i not in skipped)
    return [(i, line) for i, line in lines if line and not line.startswith("#") and re.search(r"\w", line)]


def repeated(paths: list[Path]) -> list[str]:
    """Return the places of every block of `BLOCK` meaningful lines that stands in more than one file."""
    places = defaultdict(dict)
    for path in paths:
        lines = code_lines(path)
        for start in range(len(lines) - BLOCK + 1):
            block = tuple(line for _, line in lines[start : start + BLOCK])
            places[block].setdefault(path, lines[start][0])
    return [", ".join(f"{name(p)}:{i}" for p, i in where.items()) for where in places.values() if len(where) > 1]


@pytest.mark.parametrize("path", SHIPPED, ids=name)
def test_files_and_functions_are_short(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert len(source.splitlines()) <= LONGEST_FILE
    long = [f.name for f in functions(ast.parse(source)) if f.end_lineno - f.lineno >= LONGEST_FUNCTION]
    assert long == [], f"functions of more than {LONGEST_FUNCTION} lines"


def test_the_median_function_is_short() -> None:
    lengths = sorted(f.end_lineno - f.lineno + 1 for p in SHIPPED for f in functions(ast.parse(p.read_text("utf-8"))))
    assert lengths[len(lengths) // 2] <= 8


@pytest.mark.parametrize("tests", [False, True])
def test_no_block_of_lines_stands_in_two_files(tests: bool) -> None:
    """Among the sources and among the tests; a test may write out again what it checks, its signature above all."""
    assert repeated([path for path in SOURCES if ("tests" in path.relative_to(ROOT).parts) == tests]) == []


def test_a_repeated_block_would_be_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{__name__}.ROOT", tmp_path)
    body = "\n\n".join(f"value_{i} = compute({i})" for i in range(BLOCK))
    for file, indent in (("a.py", ""), ("b.py", "    ")):
        text = "import os\n" + ("if os:\n" if indent else "") + "\n".join(indent + line for line in body.splitlines())
        (tmp_path / file).write_text(text)
    assert len(repeated([tmp_path / "a.py", tmp_path / "b.py"])) == 1


def test_tests_mirror_the_tree() -> None:
    """Each folder of tests stands for a folder of the package, so that a module's tests are found without searching."""
    packages = {
        path.parent.relative_to(ROOT / "core" / "tercet").as_posix() for path in SHIPPED if "core" in path.parts
    }
    packages |= {"server", "server/demo", "server/dialects", "heads", "network", "benchmarks"}
    packages |= {f"integrations/{store}" for store in STORES}
    tested = {path.parent.relative_to(ROOT / "tests").as_posix() for path in (ROOT / "tests").rglob("test_*.py")}
    assert tested <= packages


FORBIDDEN = {
    "the host of a package registry": r"(?:pypi|npmjs|pythonhosted|debian)\.(?:org|com|net)",
    "an absolute path of one machine": r"""(?:^|["'\s=(`])/(?:work|opt|root|home|farm|Users)/[A-Za-z]""",
    "a note to come back": r"\b(?:TODO|FIXME|XXX)\b(?!\|)",
}


@pytest.mark.parametrize("kind", FORBIDDEN)
def test_no_text_holds(kind: str) -> None:
    pattern = re.compile(FORBIDDEN[kind], re.MULTILINE)
    texts = ((path, path.read_text(encoding="utf-8")) for path in TEXTS if path.name != Path(__file__).name)
    assert [(name(path), found[0]) for path, text in texts if (found := pattern.search(text))] == []


def test_families_never_import_each_other() -> None:
    sources = {path.stem: path.read_text(encoding="utf-8") for path in (ROOT / "core/tercet/models").glob("*.py")}
    families = {stem for stem, source in sources.items() if re.search(r"^@register\(", source, re.MULTILINE)}
    assert len(families) > 5
    imported = {stem: set(re.findall(r"tercet\.models\.(\w+)", sources[stem])) for stem in families}
    assert {stem: others & families for stem, others in imported.items() if others & families} == {}


def test_data_files_are_shipped_next_to_their_readers() -> None:
    package = ROOT / "core" / "tercet"
    assert (package / "py.typed").is_file() and (ROOT / "server" / "tercet_server" / "py.typed").is_file()
    assert (package / "checkpoints" / "stopwords" / "english.txt").is_file()


def test_only_packages_lie_in_the_import_roots() -> None:
    """Nothing importable lies directly in a folder that stands on the path of an editable install."""
    roots = {"core": "tercet", "server": "tercet_server", **{f"integrations/{s}": f"tercet_{s}" for s in STORES}}
    for root, package in roots.items():
        folders = [path for path in (ROOT / root).iterdir() if path.is_dir() and path.name != "__pycache__"]
        assert [path.name for path in folders] == [package] and (folders[0] / "py.typed").is_file()
        assert list((ROOT / root).glob("*.py")) == []
