import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import lpcam_jax

METHOD_FILES = (
    "class_activation",
    "local_features",
    "clustering",
    "prototypes",
    "prototype_activation",
    "seeds",
    "metrics",
)
FUNCTIONS = [name for name in lpcam_jax.__all__ if not inspect.isclass(getattr(lpcam_jax, name, None))]
CLASSES = [name for name in lpcam_jax.__all__ if name not in FUNCTIONS]
TUPLES = [name for name in CLASSES if hasattr(getattr(lpcam_jax, name), "_fields")]
CALLABLES = {name: getattr(lpcam_jax, name, None) for name in lpcam_jax.__all__} | {
    f"FeatureSample.{name}": member
    for name, member in inspect.getmembers(lpcam_jax.FeatureSample, inspect.isfunction)
    if not name.startswith("_")
}
DOCUMENTED = [name for name in CALLABLES if name not in CLASSES]
SHAPE = re.compile(r"\((?:|[\w.*']+,|[\w.*']+(?:, ?[\w.*']+)*)\)")  # (), (n,), (*b, h, w, c), (...)
SIZES_WITHOUT_DEFAULT = {"k", "num_classes", "context"}  # nothing sensible to default to


def parameters(name):
    return [p for p in inspect.signature(CALLABLES[name]).parameters.values() if p.name != "self"]


def sections(name):
    """Text of "Args" by parameter, and text of "Returns"."""
    doc = inspect.getdoc(CALLABLES[name])
    args = re.search(r"Args:\n(.*?)(?:\n\n|\Z)", doc, re.DOTALL)
    returns = re.search(r"Returns:\n(.*?)(?:\n\n|\Z)", doc, re.DOTALL)
    entries = re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", args[1], re.MULTILINE) if args else []
    return dict(entries), returns[1] if returns else ""


def is_array(annotation):
    return "Array" in str(annotation) or "ndarray" in str(annotation)


def imported(path):
    """(relative level, module) of every import in the file, wherever it is."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((0, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.level, node.module


def test_everything_that_is_promised_exists_and_is_sorted():
    assert all(hasattr(lpcam_jax, name) for name in lpcam_jax.__all__)
    assert lpcam_jax.__all__ == sorted(set(lpcam_jax.__all__))
    assert len(lpcam_jax.__all__) > 20


def test_everything_public_of_the_method_files_is_promised():
    for module in METHOD_FILES:
        members = vars(sys.modules[f"lpcam_jax.{module}"])
        own = {n for n, m in members.items() if getattr(m, "__module__", "") == f"lpcam_jax.{module}" and n[0] != "_"}
        assert own
        assert own <= set(lpcam_jax.__all__)


@pytest.mark.parametrize("name", DOCUMENTED)
def test_the_docstring_names_every_argument_and_the_result(name):
    args, returns = sections(name)
    assert list(args) == [p.name for p in parameters(name)]
    if inspect.signature(CALLABLES[name]).return_annotation not in (None, inspect.Signature.empty):
        assert returns


@pytest.mark.parametrize("name", DOCUMENTED)
def test_the_docstring_states_the_shape_of_every_array(name):
    args, returns = sections(name)
    for parameter in parameters(name):
        if is_array(parameter.annotation) and parameter.name != "key":
            assert SHAPE.search(args[parameter.name]), parameter.name
    if is_array(inspect.signature(CALLABLES[name]).return_annotation):
        assert SHAPE.search(returns)


@pytest.mark.parametrize("name", TUPLES)
def test_the_docstring_of_a_result_names_every_field(name):
    cls = getattr(lpcam_jax, name)
    for field in cls._fields:
        assert re.search(rf"^[\w, ]*\b{field}\b[\w, ]*:", inspect.getdoc(cls), re.MULTILINE), field


@pytest.mark.parametrize("name", [*FUNCTIONS, "FeatureSample", "FeatureSample.add", "FeatureSample.points"])
def test_options_are_keyword_only_and_have_defaults(name):
    for parameter in parameters(name):
        if parameter.kind is parameter.KEYWORD_ONLY:
            assert parameter.default is not parameter.empty or parameter.name in SIZES_WITHOUT_DEFAULT, parameter.name
        else:
            assert parameter.default is parameter.empty, parameter.name


@pytest.mark.parametrize("name", DOCUMENTED)
def test_a_key_comes_first(name):
    assert "key" not in [p.name for p in parameters(name)[1:]]


def test_some_functions_take_a_key_and_some_have_options():
    assert [name for name in FUNCTIONS if parameters(name)[0].name == "key"] == ["cluster_classes", "kmeans_plus_plus"]
    with_options = [name for name in FUNCTIONS if any(p.kind is p.KEYWORD_ONLY for p in parameters(name))]
    assert {"fuse", "kmeans", "normalize", "seed_mask", "select_prototypes", "split"} <= set(with_options)


@pytest.mark.parametrize("module", METHOD_FILES)
def test_a_method_file_imports_method_files_jax_numpy_and_scipy_only(module):
    path = Path(lpcam_jax.__file__).parent / f"{module}.py"
    found = list(imported(path))
    assert found
    for level, source in found:
        allowed = METHOD_FILES if level else ("collections", "functools", "typing", "jax", "numpy", "scipy")
        assert level <= 1
        assert source.split(".")[0] in allowed, source


@pytest.mark.parametrize("module", METHOD_FILES)
def test_a_method_file_touches_no_disk(module):
    path = Path(lpcam_jax.__file__).parent / f"{module}.py"
    calls = [node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    names = {call.id if isinstance(call, ast.Name) else getattr(call, "attr", "") for call in calls}
    assert len(names) > 3
    assert not names & {"open", "load", "save", "savez", "savetxt", "fromfile", "tofile", "memmap", "__import__"}


def test_importing_the_package_imports_no_model_no_data_and_no_config():
    script = (
        "import sys, lpcam_jax; print(*(m for m in sys.modules if m.startswith('lpcam_jax') or m in ('flax', 'PIL')))"
    )
    command = [sys.executable, "-c", script]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert sorted(output) == sorted(["lpcam_jax", *(f"lpcam_jax.{module}" for module in METHOD_FILES)])
