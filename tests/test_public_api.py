import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path

from test_accelerator import CALLS, OF_NUMPY_OR_THE_DISK

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


def source_of(module):
    return ast.parse(Path(lpcam_jax.__file__).with_name(f"{module}.py").read_text())


def imported(tree):
    """(relative level, module) of every import in a file, wherever it is."""
    for node in ast.walk(tree):
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


# That an "Args" section names every argument is checked by `make lint` (D417).


def test_functions_say_what_they_take_and_return():
    for name in DOCUMENTED:
        args, returns = sections(name)
        assert list(args) == [p.name for p in parameters(name)], name
        assert returns or inspect.signature(CALLABLES[name]).return_annotation in (None, inspect.Signature.empty), name


def test_the_shape_of_every_array_is_said():
    for name in DOCUMENTED:
        args, returns = sections(name)
        for parameter in parameters(name):
            if is_array(parameter.annotation) and parameter.name != "key":
                assert SHAPE.search(args[parameter.name]), f"{parameter.name} of {name}"
        if is_array(inspect.signature(CALLABLES[name]).return_annotation):
            assert SHAPE.search(returns), name


def test_every_field_of_a_result_is_described():
    for name in TUPLES:
        cls = getattr(lpcam_jax, name)
        for field in cls._fields:
            assert re.search(rf"^[\w, ]*\b{field}\b[\w, ]*:", inspect.getdoc(cls), re.MULTILINE), f"{field} of {name}"


def test_options_are_keyword_only_and_have_defaults_and_a_key_comes_first():
    for name in [*FUNCTIONS, "FeatureSample", "FeatureSample.add", "FeatureSample.points"]:
        for number, parameter in enumerate(parameters(name)):
            what, has_default = f"{parameter.name} of {name}", parameter.default is not parameter.empty
            if parameter.kind is parameter.KEYWORD_ONLY:
                assert has_default or parameter.name in SIZES_WITHOUT_DEFAULT, what
            else:
                assert not has_default, what
            assert parameter.name != "key" or number == 0, what


def test_a_method_file_imports_method_files_jax_numpy_and_scipy_only():
    for module in METHOD_FILES:
        found = list(imported(source_of(module)))
        assert found
        for level, source in found:
            allowed = METHOD_FILES if level else ("collections", "functools", "typing", "jax", "numpy", "scipy")
            assert level <= 1
            assert source.split(".")[0] in allowed, f"{source} in {module}"


def test_a_method_file_touches_no_disk():
    for module in METHOD_FILES:
        calls = [node.func for node in ast.walk(source_of(module)) if isinstance(node, ast.Call)]
        names = {call.id if isinstance(call, ast.Name) else getattr(call, "attr", "") for call in calls}
        assert len(names) > 3
        assert not names & {"open", "load", "save", "savez", "savetxt", "fromfile", "tofile", "memmap", "__import__"}


def test_every_public_function_is_compared_on_accelerators():
    assert set(CALLS) == set(FUNCTIONS) - OF_NUMPY_OR_THE_DISK


def test_importing_the_package_imports_no_model_no_data_and_no_config():
    script = (
        "import sys, lpcam_jax; print(*(m for m in sys.modules if m.startswith('lpcam_jax') or m in ('flax', 'PIL')))"
    )
    command = [sys.executable, "-c", script]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    errors = ["lpcam_jax.machine", "lpcam_jax.machine.errors"]
    assert sorted(output) == sorted(["lpcam_jax", *errors, *(f"lpcam_jax.{module}" for module in METHOD_FILES)])
