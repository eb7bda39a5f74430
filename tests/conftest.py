import contextlib
import gc
import importlib
import io
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

# Most of a test's time is compilation, and half of that LLVM's optimization. What that changes is last bits: for tests
# that are marked `optimized`, `make test-all` compiles as users do.
os.environ.setdefault(
    "XLA_FLAGS", "" if os.environ.get("LPCAM_TEST_OPTIMIZED") else "--xla_backend_optimization_level=0"
)

import jax
import pytest

from lpcam_jax import devices
from lpcam_jax.scripts import load_recipe, run_program

# Traced programs are millions of objects that stay: looking through them again and again takes a twentieth of the time.
gc.set_threshold(100_000, 20, 100)

# A (c,) added to a (b, h, w, c) by accident is an error, not a broadcast.
jax.config.update("jax_numpy_rank_promotion", "raise")

REPOSITORY = Path(__file__).parents[1]
OPTIMIZED = bool(os.environ.get("LPCAM_TEST_OPTIMIZED"))

# Seconds after which a program that has not ended is taken for one that hangs. No machine is so busy that one takes as
# long, and nothing else here depends on time.
HANGS = 1800

# Six training steps, checkpoints at 2, 4 and 6, of which the last two stay.
TINY_RECIPE = """
from lpcam_jax.config import Config, Data, Inference, Model, Prototypes, Training

def get_config():
    return Config(
        data=Data(source="shapes", scenes=24),
        model=Model(blocks=(1, 1, 1, 1), width=4, stem_width=4, output_stride=16),
        training=Training(
            epochs=3, batch_size=8, crop=64, long_side=(64, 96), learning_rate=0.01, frozen=(), batch_norm="train",
            checkpoint_every=2,
        ),
        prototypes=Prototypes(cam_scales=(1.0, 0.5), clusters=3, sample=256),
        inference=Inference(scales=(1.0, 0.5), max_shapes=2),
    )
"""

# Six training steps, checkpoints at 2, 4 and 6, of which the last two stay, validations at 3 and 6.
TINY_SEGMENTATION_RECIPE = """
from lpcam_jax.config import Data, DeepLab, SegmentationConfig, SegmentationInference, SegmentationTraining

def get_config():
    return SegmentationConfig(
        data=Data(source="shapes", scenes=12, held_out=0.25),
        model=DeepLab(
            head="deeplabv3plus", head_width=8, blocks=(1, 1, 1, 1), width=4, stem_width=4, layout="torchvision",
            stem_pool="symmetric", output_stride=16,
        ),
        training=SegmentationTraining(
            steps=6, batch_size=4, accumulate=1, crop=48, scales=(0.5, 0.75), learning_rate=0.01, batch_norm="train",
            hold=1, average=0.5, validate_every=3, checkpoint_every=2,
        ),
        inference=SegmentationInference(max_shapes=1),
    )
"""


# Six training steps, checkpoints at 2, 4 and 6, of which the last two stay.
TINY_IRN_RECIPE = """
from lpcam_jax.config import Data, IRNConfig, IRNTraining, Model

def get_config():
    return IRNConfig(
        data=Data(source="shapes", scenes=24),
        model=Model(blocks=(1, 1, 1, 1), width=4, stem_width=4),
        training=IRNTraining(
            epochs=2, batch_size=8, crop=64, scale_range=(1.0, 1.5), radius=4, learning_rate=0.01, checkpoint_every=2
        ),
    )
"""


class Finished(NamedTuple):
    """How a program ended, and what it printed."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="session", autouse=True)
def compiled_programs(tmp_path_factory):
    """Everything is compiled once a session, also for the programs that tests start, and for all its workers."""
    own = tmp_path_factory.getbasetemp()
    folder = str((own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "compiled")
    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = folder
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.2"


@pytest.fixture(scope="session")
def mesh():
    return devices.mesh()


@pytest.fixture(scope="session")
def recipe(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("recipe") / "tiny.py"
    path.write_text(TINY_RECIPE)
    return str(path)


@pytest.fixture(scope="session")
def tiny(recipe):
    """The Config of the tiny recipe."""
    return load_recipe(recipe)


@pytest.fixture(scope="session")
def segmentation_recipe(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("recipe") / "tiny_segmentation.py"
    path.write_text(TINY_SEGMENTATION_RECIPE)
    return str(path)


@pytest.fixture(scope="session")
def irn_recipe(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("recipe") / "tiny_irn.py"
    path.write_text(TINY_IRN_RECIPE)
    return str(path)


@pytest.fixture(scope="session")
def program():
    """`program("train.py", *words)` runs a program in this process."""

    def run(name, *words) -> Finished:
        out, err, code = io.StringIO(), io.StringIO(), 0
        with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            patch.setattr(sys, "argv", [name, *map(str, words)])
            patch.syspath_prepend(REPOSITORY)
            try:
                run_program(importlib.import_module(name.removesuffix(".py")).main)
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


@pytest.fixture(scope="session")
def trained(program, recipe, tmp_path_factory) -> Path:
    """A finished run of the tiny recipe; look, do not touch."""
    workdir = tmp_path_factory.mktemp("runs") / "trained"
    finished = program("train.py", recipe, "--workdir", workdir)
    assert finished.code == 0, finished.err
    return workdir


@pytest.fixture(scope="session")
def mapped(program, trained, tmp_path_factory) -> tuple[Path, str]:
    """The heat maps of the finished run, and what infer.py printed; look, do not touch."""
    out = tmp_path_factory.mktemp("heatmaps") / "mapped"
    finished = program("infer.py", "--ckpt", trained, "--out", out)
    assert finished.code == 0, finished.err
    return out, finished.out


@pytest.fixture(scope="session")
def irn_trained(program, irn_recipe, mapped, trained, tmp_path_factory) -> Path:
    """A finished run of the tiny recipe of IRNet, on the backbone of `trained`; look, do not touch."""
    workdir = tmp_path_factory.mktemp("runs") / "irn"
    finished = program(
        "train.py", irn_recipe, "--data.maps", mapped[0], "--model.weights", trained, "--workdir", workdir
    )
    assert finished.code == 0, finished.err
    return workdir


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


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(items):
    """Whatever drives a browser is of the rest."""
    for item in items:
        if "driver" in item.fixturenames:
            item.add_marker("rest")


def pytest_addoption(parser):
    parser.addoption("--heatmaps", help="a folder of infer.py to look at in the browser, instead of the tests' own")
    parser.addoption("--screenshots", help="a folder for pictures of what the browser shows")
    parser.addoption("--kills", type=int, default=2, help="how often tests/test_kills.py kills each program")
