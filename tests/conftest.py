import contextlib
import gc
import importlib
import io
import os
import shutil
import signal
import subprocess
import sys
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from etils import epath
from filelock import FileLock
from tiny_recipes import TINY

from lpcam_jax.config.recipes import load_recipe
from lpcam_jax.machine import devices
from lpcam_jax.machine.files import write_atomically
from lpcam_jax.machine.programs import run_program
from lpcam_jax.training import loop

# Traced programs are millions of objects that stay: looking through them again and again takes a twentieth of the time.
gc.set_threshold(100_000, 20, 100)

# A (c,) added to a (b, h, w, c) by accident is an error, not a broadcast.
jax.config.update("jax_numpy_rank_promotion", "raise")

REPOSITORY = Path(__file__).parents[1]
OPTIMIZED = bool(os.environ.get("LPCAM_TEST_OPTIMIZED"))

# Seconds after which a program that has not ended is taken for one that hangs. No machine is so busy that one takes as
# long, and nothing else here depends on time.
HANGS = 1800


CHAIN = """
from lpcam_jax.chain.recipe import Chain, Stage

def get_chain():
    backbone = ("--model.weights", "{classifier}")
    return Chain((
        Stage("classifier", "classifier.py"),
        Stage("amn", "amn.py", backbone, optional=True),
        Stage("irn", "irn.py", backbone, after={"amn": ("--labels.method", "amn")}),
        Stage("network", "segmentation.py"),
    ))
"""


class Finished(NamedTuple):
    """How a program ended, and what it printed."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="session")
def shared(tmp_path_factory) -> Path:
    """A folder of this session, the same for all its workers."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session", autouse=True)
def compiled_programs(pytestconfig):
    """Everything is compiled once, for all sessions and workers, also for the programs that tests start."""
    folder = str(pytestconfig.cache.mkdir("compiled"))
    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = folder
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.2"


@pytest.fixture(scope="session", autouse=True)
def _ctrl_c_is_minded():
    """Whoever runs the tests in the background may ignore SIGINT, and the programs that they start would with them."""
    before = signal.getsignal(signal.SIGINT)
    if before == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def mesh():
    return devices.mesh()


@pytest.fixture(scope="session")
def program():
    """`program("train.py", *words)` runs a program in this process."""

    def run(name, *words) -> Finished:
        out, err, code = io.StringIO(), io.StringIO(), 0
        with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            patch.setattr(sys, "argv", [name, *map(str, words)])
            patch.syspath_prepend(REPOSITORY)
            try:
                main = importlib.import_module(name.removesuffix(".py")).main
                run_program(lambda: main(sys.argv[1:]))
            except SystemExit as end:
                code = end.code or 0
        return Finished(code, out.getvalue(), err.getvalue())

    return run


@pytest.fixture
def no_loose_ends():
    """For tests that damage checkpoints: Orbax leaves tasks behind, and ended by chance they disturb what runs then."""
    yield
    gc.collect()


@pytest.fixture
def start_program():
    """`start_program("train.py", *words)` starts a program as a process of its own, ended with the test."""
    started = []

    def start(name, *words, **environment) -> subprocess.Popen:
        command = [sys.executable, name, *map(str, words)]
        environment = {**os.environ, **environment}
        pipe = subprocess.PIPE
        process = subprocess.Popen(command, cwd=REPOSITORY, stdout=pipe, stderr=pipe, text=True, env=environment)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


class Made(NamedTuple):
    """A folder that a program wrote, and what it printed."""

    directory: Path
    out: str


class TinyRuns:
    """The tiny run of every kind, and its results: made once for all tests; look, do not touch.

    Args:
        folder: where they are, for all workers of the session.
        recipes: where the recipes are, for this one.
        program: the fixture.
    """

    def __init__(self, folder: Path, recipes: Path, program):
        self._folder, self._recipes, self._program = folder, recipes, program
        self._steps = {}

    def recipe(self, kind: str) -> str:
        """The recipe file."""
        path = self._recipes / f"{kind}.py"
        path.write_text(TINY[kind].recipe)
        return str(path)

    def words(self, kind: str) -> list[str]:
        """Of train.py; --workdir is missing."""
        needs, where = TINY[kind].needs, {}
        if needs:
            where = {"run": self.run("classifier").directory, "maps": self.results("classifier").directory}
        return ["train.py", self.recipe(kind), *(word.format(**where) for word in needs)]

    def train(self, kind: str, workdir: Path) -> Finished:
        """Run train.py. A kind's step is traced and compiled once: that takes longer than all that is computed."""
        real = loop.make_train_step

        def once(graph, *arguments, **options):
            key = (kind, graph, *sorted(options.items()))
            if key not in self._steps:
                self._steps[key] = real(graph, *arguments, **options)
            return self._steps[key]

        words = self.words(kind)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(loop, "make_train_step", once)
            return self._program(*words, "--workdir", workdir)

    def run(self, kind: str) -> Made:
        """The finished run."""
        if TINY[kind].needs:
            self.results("classifier")  # whose lock is another
        return self._made(f"{kind}_run", lambda directory: self.train(kind, directory))

    def results(self, kind: str) -> Made:
        """What infer.py made with it, of all pictures."""
        run = self.run(kind).directory
        infer = ("infer.py", "--ckpt", run, "--out")
        return self._made(f"{kind}_results", lambda directory: self._program(*infer, directory))

    def _made(self, name: str, make) -> Made:
        directory, said = self._folder / name, self._folder / f"{name}.txt"
        if not said.exists():
            with FileLock(self._folder / f"{name}.lock"):
                if not said.exists():
                    finished = make(directory)
                    assert finished.code == 0, finished.err
                    write_atomically(said, finished.out.encode())
        return Made(directory, said.read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def tiny_runs(shared, program, tmp_path_factory) -> TinyRuns:
    """The tiny run of every kind, and its results; those of other sessions, too, if LPCAM_TEST_RUNS names a folder."""
    folder = shared
    if kept := os.environ.get("LPCAM_TEST_RUNS"):
        folder = Path(kept, "optimized" if OPTIMIZED else "quickly_compiled")
        folder.mkdir(exist_ok=True)
    return TinyRuns(folder, tmp_path_factory.mktemp("recipes"), program)


@pytest.fixture(scope="session")
def recipe(tiny_runs) -> str:
    return tiny_runs.recipe("classifier")


@pytest.fixture(scope="session")
def segmentation_recipe(tiny_runs) -> str:
    return tiny_runs.recipe("segmentation")


@pytest.fixture(scope="session")
def irn_recipe(tiny_runs) -> str:
    return tiny_runs.recipe("irn")


@pytest.fixture(scope="session")
def tiny(recipe):
    """The config of the tiny classifier."""
    return load_recipe(recipe)


@pytest.fixture(scope="session")
def trained(tiny_runs) -> Path:
    """A finished run of the tiny classifier; look, do not touch."""
    return tiny_runs.run("classifier").directory


@pytest.fixture(scope="session")
def mapped(tiny_runs) -> Made:
    """Its heat maps, and what infer.py printed; look, do not touch."""
    return tiny_runs.results("classifier")


@pytest.fixture(scope="session")
def irn_trained(tiny_runs) -> Path:
    """A finished run of IRNet, on the backbone of `trained`; look, do not touch."""
    return tiny_runs.run("irn").directory


@pytest.fixture
def chain(tmp_path) -> Path:
    """The file of a chain of tiny recipes."""
    for kind, tiny in TINY.items():
        (tmp_path / f"{kind}.py").write_text(tiny.recipe)
    file = tmp_path / "chain.py"
    file.write_text(CHAIN)
    return file


def stored_checkpoint(directory: Path, step: int) -> dict:
    """All arrays of a checkpoint, optimizer and running mean included, whatever system it is of."""
    place = directory / "checkpoints" / str(step) / "default"
    tree = ocp.PyTreeCheckpointHandler().metadata(epath.Path(place)).tree
    as_arrays = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
    with ocp.PyTreeCheckpointer() as checkpointer:
        return checkpointer.restore(place, args=ocp.args.PyTreeRestore(restore_args=as_arrays))


@pytest.fixture(scope="session")
def driver():
    """Headless Chromium, or a skip that says how to get it."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="drives a browser: pip install selenium")
    chromium, chromedriver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and chromedriver):
        pytest.skip("drives a browser: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for word in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1280,900"):
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(chromedriver))
    yield driver
    driver.quit()


# LLVM's optimization is half of what compilation takes, and fused loops written by way of MLIR are half of the rest.
QUICKLY_COMPILED = " ".join(
    (
        "--xla_backend_optimization_level=0",
        "--xla_cpu_use_fusion_emitters=false",
        "--xla_cpu_parallel_codegen_split_count=1",
    )
)


def pytest_configure(config):
    """Before JAX opens the devices, which reads the flags.

    Most of a test's time is compilation. To save some of it changes last bits: `make test-all` compiles the tests that
    compare numbers as users do, and so are programs for GPUs and TPUs.
    """
    as_for_users = os.environ.get("LPCAM_TEST_OPTIMIZED") or config.option.markexpr == "accelerator"
    os.environ.setdefault("XLA_FLAGS", "" if as_for_users else QUICKLY_COMPILED)


@pytest.hookimpl(wrapper=True, tryfirst=True)  # before -m chooses, and after it
def pytest_collection_modifyitems(config, items):
    """Whatever drives a browser is of the rest; what needs a GPU or TPU is skipped without one; the longest first."""
    for item in items:
        if "driver" in item.fixturenames:
            item.add_marker("rest")
    of_accelerators = [item for item in items if item.get_closest_marker("accelerator")]
    if of_accelerators and not config.option.on_cpu and jax.default_backend() == "cpu":
        reason = "JAX has only CPUs here; --on-cpu compares the CPU with itself"
        for item in of_accelerators:
            item.add_marker(pytest.mark.skip(reason=reason))
    yield
    items[:] = dealt_out(items, workers=int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))


def dealt_out(items: list, *, workers: int) -> list:
    """The tests that take minutes first, and a share of them for each worker.

    Workers begin with as many tests each, one after the other of this list, and take others' last ones when they are
    through: without this the first worker would begin with all that takes minutes.
    """
    long = [item for item in items if item.get_closest_marker("minutes")]
    others = iter([item for item in items if not item.get_closest_marker("minutes")])
    dealt = []
    for worker in range(workers):
        share = (len(items) - len(dealt)) // (workers - worker)
        own = long[worker::workers]
        dealt += own + list(islice(others, max(0, share - len(own))))
    return [*dealt, *others]


def pytest_addoption(parser):
    parser.addoption("--on-cpu", action="store_true", help="run the tests of accelerators without one, to try them")
    parser.addoption("--heatmaps", help="a folder of infer.py to look at in the browser, instead of the tests' own")
    parser.addoption("--screenshots", help="a folder for pictures of what the browser shows")
    parser.addoption(
        "--kills", type=int, default=2, help="how often tests/test_kills.py and test_chain.py kill a program"
    )
