"""What the machine is to blame for is one line: no device, a full memory, a driver that does not fit."""

import os
import re
import subprocess
import sys

import jax
import numpy as np
import pytest
from conftest import HANGS

from lpcam_jax.machine import devices
from lpcam_jax.machine.errors import UserError
from lpcam_jax.machine.programs import run_program
from lpcam_jax.training.checkpoints import CheckpointWriter

CPP = "\n*** Begin stack trace ***\n\ttsl::CurrentStackTrace()\n\txla::PjRtCApiClient::Compile\n*** End stack trace ***"


@pytest.mark.parametrize(
    "words",
    [
        ("train.py", "configs/shapes.py", "--workdir", "run"),
        pytest.param(
            ("-m", "lpcam_jax", "evaluate", "configs/shapes.py", "--predictions", "maps", "--out", "out"),
            marks=pytest.mark.rest,
        ),
    ],
    ids=lambda words: words[-3],
)
@pytest.mark.parametrize(
    ("platforms", "reason"),
    [
        ("cuda", r"(none is visible|'cuda': .*)"),
        pytest.param("nonsense", "'nonsense': .*", marks=pytest.mark.rest),
    ],
)
def test_a_device_that_is_not_there(start_program, tmp_path, words, platforms, reason):
    if platforms == "cuda" and any(device.platform == "gpu" for device in jax.devices()):
        pytest.skip("there is a GPU")
    words = [tmp_path / word if word in ("run", "maps", "out") else word for word in words]
    process = start_program(*words, JAX_PLATFORMS=platforms)
    out, err = process.communicate(timeout=HANGS)
    assert process.returncode == 2
    line = rf"error: JAX_PLATFORMS={platforms}: no such device can be used \({reason}\); unset it .*jax\[cuda13\]\"\.\n"
    assert re.fullmatch(line, err), err
    assert out == ""
    assert list(tmp_path.iterdir()) == []


def test_devices_that_cannot_be_opened(monkeypatch):
    def fail():
        raise RuntimeError(
            "Unable to initialize backend 'cuda': INTERNAL: CUDA_ERROR_SYSTEM_DRIVER_MISMATCH: system has unsupported "
            "display driver (you may need to uninstall the failing plugin package, or set JAX_PLATFORMS=cpu.)"
        )

    monkeypatch.setattr(jax, "devices", fail)
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    with pytest.raises(UserError) as caught:
        devices.start()
    assert str(caught.value) == (
        "JAX cannot open the devices ('cuda': INTERNAL: CUDA_ERROR_SYSTEM_DRIVER_MISMATCH: system has unsupported "
        "display driver); mend the driver, or set JAX_PLATFORMS=cpu."
    )


def ended(error: Exception, capsys) -> str:
    """What a program says of an error, with which it ends."""

    def main():
        raise error

    with pytest.raises(SystemExit) as end:
        run_program(main)
    assert end.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(
    "text",
    [
        "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 17179869184 bytes.",
        "INTERNAL: CUDA_ERROR_OUT_OF_MEMORY: out of memory",
        "RESOURCE_EXHAUSTED: Failed to allocate request for 2.00GiB (2147483648B) on device ordinal 0",
    ],
)
def test_a_full_device(capsys, text):
    line = ended(jax.errors.JaxRuntimeError(text + CPP), capsys)
    assert line.startswith(f"error: the memory is full ({text}); train with a smaller --training.batch-size")
    assert line.count("\n") == 1


def test_memory_that_is_really_full(capsys):
    def main():
        jax.numpy.zeros(1 << 46, np.uint8).block_until_ready()

    with pytest.raises(SystemExit):
        run_program(main)
    assert re.fullmatch(r"error: the memory is full \(.*\); train .*\n", capsys.readouterr().err)


def test_memory_of_the_computer_that_is_full(capsys):
    assert "the memory is full (Unable to allocate 8 EiB" in ended(
        MemoryError("Unable to allocate 8 EiB for it"), capsys
    )
    assert "the memory is full (MemoryError)" in ended(MemoryError(), capsys)


@pytest.mark.parametrize(
    "text",
    [
        "INTERNAL: CUDA_ERROR_NO_BINARY_FOR_GPU: no kernel image is available for execution on the device",
        "FAILED_PRECONDITION: DNN library initialization failed. Look at the errors above for more details.",
        "UNIMPLEMENTED: PTX was compiled with an unsupported toolchain by an older CUDA driver",
    ],
)
def test_a_driver_that_does_not_fit(capsys, text):
    line = ended(jax.errors.JaxRuntimeError(text + CPP), capsys)
    assert line.startswith(f"error: the GPU cannot be used ({text}); let its driver and the installed jax fit")
    assert line.count("\n") == 1


@pytest.mark.parametrize(
    "error", [ValueError("no"), jax.errors.JaxRuntimeError("INTERNAL: a bug"), AssertionError("no")]
)
def test_bugs_keep_their_traceback(error):
    def main():
        raise error

    with pytest.raises(type(error)):
        run_program(main)


def test_a_run_whose_memory_was_full_goes_on(program, recipe, tmp_path, monkeypatch):
    """What was trained until then is kept."""
    steps = []
    original = CheckpointWriter.save

    def save(*arguments, **options):
        steps.append(1)
        if len(steps) == 2:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory" + CPP)
        return original(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(CheckpointWriter, "save", save)
        finished = program("train.py", recipe, "--workdir", tmp_path / "run", "--stages", "classifier")
    assert finished.code == 2
    assert finished.err.splitlines()[-1].startswith("error: the memory is full (RESOURCE_EXHAUSTED: Out of memory);")
    assert program("train.py", recipe, "--workdir", tmp_path / "run", "--stages", "classifier").code == 0


FINISHED_TOGETHER = """
from contextlib import ExitStack
import jax, jax.numpy as jnp
from lpcam_jax.machine import devices

jax.default_backend = lambda: "tpu"
with ExitStack() as all_at_once:
    for _ in range(8):
        all_at_once.enter_context(devices.finishing())
        print(*(device.id for device in jnp.zeros(()).devices()))
    with devices.finishing(scatters=True):
        print("and the CPU")
print(devices._idle().qsize())
"""


def test_every_device_finishes_two_pictures_at_a_time_and_the_crf_does_not_wait_for_tpus():
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=4", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", FINISHED_TOGETHER]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=HANGS)
    assert ended.stdout.splitlines() == [*"00112233", "and the CPU", "8"], ended.stderr
