"""What `import tercet` gives, with and without torch."""

import importlib.util
import inspect
import subprocess
import sys

import pytest

import tercet

NAMES = [name for name in tercet.__all__ if name not in ("Engine", "__version__")]
HAS_TORCH = importlib.util.find_spec("torch") is not None


def python(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)


def test_importing_tercet_and_using_its_light_side_loads_no_engine() -> None:
    heavy = {"torch", "transformers", "tokenizers", "safetensors", "huggingface_hub", "pyarrow", "click", "rich"}
    done = python(f"import sys, tercet; tercet.rrf([[1], [2]]); tercet.Item('x'); print({heavy} & set(sys.modules))")
    assert (done.returncode, done.stdout, done.stderr) == (0, "set()\n", "")


def test_engine_without_torch_says_what_to_install() -> None:
    script = "import sys\nsys.modules['torch'] = None\nfrom tercet import Engine"
    done = python(script)
    last = done.stderr.strip().splitlines()[-1]
    assert last == "ImportError: tercet.Engine needs torch, which is not installed: pip install 'tercet[engine]'"


def test_engine_is_the_class_or_says_what_to_install() -> None:
    if HAS_TORCH:
        assert tercet.Engine.__name__ == "Engine"
        assert "Engine" in vars(tercet), "a second look-up must not import again"
    else:
        with pytest.raises(ImportError, match="pip install 'tercet\\[engine\\]'"):
            _ = tercet.Engine


def test_unknown_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="'tercet' has no attribute 'Engin'"):
        _ = tercet.Engin


def test_all_is_sorted_and_each_name_exists() -> None:
    assert sorted(tercet.__all__) == sorted(set(tercet.__all__))
    assert all(hasattr(tercet, name) for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_each_public_name_is_documented(name: str) -> None:
    value = getattr(tercet, name)
    first = inspect.getdoc(value).splitlines()[0]
    assert len(first) > 20 and first[-1] in ".:;,", first
    assert not first.startswith(f"{name}("), "a dataclass's generated docstring says nothing"
    for method, function in vars(value).items() if inspect.isclass(value) else ():
        if inspect.isfunction(function) and not method.startswith("_"):
            assert function.__doc__ or method in ("encode",), f"{name}.{method} has no docstring"
