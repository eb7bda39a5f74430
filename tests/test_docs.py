"""What the pages say is so: messages are in the source, links lead somewhere, flags exist."""

import ast
import re
import shlex
from functools import cache
from pathlib import Path

import pytest
from PIL import Image

from lpcam_jax.__main__ import COMMANDS
from lpcam_jax.chain.recipe import load_chain
from lpcam_jax.commands.export import FORMATS
from lpcam_jax.config import registry
from lpcam_jax.config.recipes import load_recipe, value_of_flag
from lpcam_jax.training.run import Run

REPOSITORY = Path(__file__).parents[1]
TROUBLESHOOTING = REPOSITORY / "docs" / "troubleshooting.md"
# A recipe of each kind.
EXAMPLES = {
    "classifier": "configs/folder.py",
    "irn": "configs/folder_irn.py",
    "psa": "configs/shapes_psa.py",
    "amn": "configs/shapes_amn.py",
    "mctformer": "configs/shapes_mctformer.py",
    "edam": "configs/shapes_edam.py",
    "segmentation": "configs/folder_deeplab.py",
    "upernet": "configs/shapes_upernet.py",
}
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]

# What users see of it: the programs, and what `make` and the tests say when something is not installed.
PROGRAMS = [*REPOSITORY.glob("*.py"), *REPOSITORY.glob("lpcam_jax/**/*.py"), REPOSITORY / "tests" / "conftest.py"]
NO_PYTHON = [*REPOSITORY.glob("lpcam_jax/**/*.html"), REPOSITORY / "Makefile"]


# Messages


def as_printed(node: ast.AST) -> str | None:
    """The text of an expression that makes one, `...` for its variable parts; None: it makes no text that is known."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr():
            return "".join(as_printed(part) or "..." for part in node.values)
        case ast.BinOp(op=ast.Add()):
            left, right = as_printed(node.left), as_printed(node.right)
            return None if left is None and right is None else f"{left or '...'}{right or '...'}"
    return None


def texts(source: str) -> set[str]:
    """The texts in the expressions of a Python file: docstrings are none of them."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            node.value = ast.Constant(None)
    return {one_line(text) for node in ast.walk(tree) if (text := as_printed(node))}


def one_line(text: str) -> str:
    return " ".join(text.split())


def says(text: str, message: str) -> bool:
    """Whether a text holds the pieces of the message between its `...`, in order."""
    position = 0
    for piece in message.split("..."):
        found = text.find(piece, position)
        if found < 0:
            return False
        position = found + len(piece)
    return True


def messages(page: str) -> list[str]:
    """Texts in backticks in the headings of a page; not those of other programs, `...` (of pip)."""
    headings = re.findall(r"^#+ (.*)", page, re.MULTILINE)
    found = [pair for heading in headings for pair in re.findall(r"`([^`]+)`( \(of )?", heading)]
    return [text for text, of_others in found if not of_others]


@cache
def all_texts() -> set[str]:
    found = set().union(*(texts(file.read_text()) for file in PROGRAMS))
    return found | {line for file in NO_PYTHON for line in file.read_text().splitlines()}


def test_every_message_of_the_page_is_in_the_source():
    found = messages(TROUBLESHOOTING.read_text())
    assert len(found) > 40
    assert [message for message in found if not any(says(text, message) for text in all_texts())] == []


def test_no_message_is_there_twice():
    found = messages(TROUBLESHOOTING.read_text())
    assert sorted({message for message in found if found.count(message) > 1}) == []


# Links


def anchors(page: str) -> list[str]:
    """What GitHub makes of the headings."""
    headings = re.findall(r"^#+ (.*)", page, re.MULTILINE)
    return [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_lead_to_a_file_and_a_heading(page):
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        if not file.exists() or (anchor and anchor not in anchors(file.read_text())):
            broken.append(target)
    assert broken == []


# Notebooks


def test_runs_are_loaded_as_the_notebook_page_shows(tiny_runs, monkeypatch, tmp_path, capsys):
    (tmp_path / "runs").mkdir()
    for name, kind in {"demo": "classifier", "seg": "segmentation"}.items():
        (tmp_path / "runs" / name).symlink_to(tiny_runs.run(kind).directory)
    for name, colour in {"cat": "gray", "dog": "red"}.items():
        Image.new("RGB", (64, 48), colour).save(tmp_path / f"{name}.jpg")
    monkeypatch.chdir(tmp_path)
    page = (REPOSITORY / "docs" / "in_a_notebook.md").read_text()
    blocks, notebook = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL), {}
    of_maps, of_masks = (block for block in blocks if "load(" in block)
    exec(of_maps, notebook)
    assert notebook["result"].maps["lpcam"].shape[:2] == (48, 64)
    exec(of_masks, notebook)
    assert notebook["result"].mask.shape == (48, 64)
    assert len(capsys.readouterr().out.splitlines()) == 2


# Commands


def code(page: str) -> list[str]:
    """The lines of the code blocks, and what is in backticks in the text; a backslash goes on in the next line."""
    block = re.compile(r"^```\w*\n(.*?)^```", re.MULTILINE | re.DOTALL)
    lines = [line for text in block.findall(page) for line in text.replace("\\\n", " ").splitlines()]
    return lines + re.findall(r"`([^`]+)`", block.sub("", page))


def commands(page: str) -> list[list[str]]:
    """The words of every command of ours, from the program on."""
    in_checkout = re.compile(r"^lpcam (train|infer) ")  # the same commands of the installed package
    lines = [re.sub("^lpcam ", "python -m lpcam_jax ", in_checkout.sub(r"python \1.py ", line)) for line in code(page)]
    ours = r"python (train\.py|infer\.py|-m lpcam_jax) "
    return [shlex.split(line, comments=True)[1:] for line in lines if re.match(ours, line)]


def flags_in(text: str) -> set[str]:
    return set(re.findall(r"(?<![\w-])--[a-z][\w.-]*\w", text))


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[str, Path]:
    """An empty run of each kind: which flags infer.py has, says the run."""
    folder = tmp_path_factory.mktemp("runs")
    configs = {kind: registry.load_system(kind).config() for kind in registry.kinds()}
    return {kind: Run.create(folder / kind, its, ("cat",)).directory for kind, its in configs.items()}


@pytest.fixture(scope="module")
def flags_of(program, runs):
    """The flags of a program as its --help lists them, by the words that choose them."""

    @cache
    def flags(*words: str) -> frozenset[str]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("COLUMNS", "80")  # one column of flags
            finished = program(*words, "--help")
        assert finished.code == 0, finished
        # A flag is indented by two; the examples, and what is said of a flag, by more.
        return frozenset(flags_in(" ".join(re.findall(r"^  (-[^\s,]+(?:, -[^\s,]+)*)", finished.out, re.MULTILINE))))

    def of_command(words: list[str]) -> frozenset[str]:
        match words:
            case ["infer.py", *_]:
                return frozenset().union(*(flags("infer.py", "--ckpt", str(run)) for run in runs.values()))
            case ["train.py", *rest]:
                recipe = next((word for word in rest if word.endswith(".py")), "configs/folder.py")
                config = load_recipe(str(REPOSITORY / recipe))
                backbone = value_of_flag("--model.backbone", rest) or config.model.backbone
                return flags("train.py", str(REPOSITORY / EXAMPLES[config.kind]), "--model.backbone", backbone)
            case ["-m", "lpcam_jax", "export", "--format", kind, *_]:
                return flags("lpcam_jax.__main__", "export", "--format", kind)
            case ["-m", "lpcam_jax", "chain", *rest] if rest:
                # The chain shares them out among its stages, and refuses what none of them has.
                shown = program("lpcam_jax.__main__", "chain", *rest, "--dry-run")
                assert shown.code == 0, shown
                return frozenset(flags_in(" ".join(rest)))
            case ["-m", "lpcam_jax", "evaluate", *_]:
                return flags("lpcam_jax.__main__", "evaluate", str(REPOSITORY / "configs" / "folder.py"))
            case ["-m", "lpcam_jax", name, *_]:
                assert name in COMMANDS, f"there is no command {name}"
                return flags("lpcam_jax.__main__", name)

    return of_command


@pytest.fixture(scope="module")
def all_flags(flags_of):
    examples = ["infer.py", *(f"train.py {recipe}" for recipe in EXAMPLES.values())]
    examples += [f"train.py configs/folder.py --model.backbone {name}" for name in registry.backbones()]
    examples += [f"-m lpcam_jax {name}" for name in COMMANDS]
    examples += [f"-m lpcam_jax export --format {name}" for name in FORMATS]
    return frozenset().union(*(flags_of(example.split()) for example in examples))


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_commands_have_the_flags_they_are_shown_with(page, flags_of):
    for words in commands(page.read_text()):
        given = flags_in(" ".join(word for word in words if word.startswith("--")))
        assert given <= flags_of(words), " ".join(words)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_flags_alone_are_those_of_some_program(page, all_flags):
    mentioned = flags_in(" ".join(text for text in code(page.read_text()) if text.startswith("--")))
    groups = {flag.partition(".")[0] for flag in all_flags if "." in flag}  # `--prototypes` flags
    # `--network.training.steps`, of a stage of a chain.
    chains = (REPOSITORY / "configs" / file for file in ("folder_chain.py", "paper/voc12.py"))
    stages = "|".join(name for chain in chains for name in load_chain(str(chain)).names())
    mentioned = {re.sub(rf"^--({stages})\.", "--", flag) for flag in mentioned} - {"--recipe"}
    assert mentioned - all_flags - groups - {"--help"} == set()
