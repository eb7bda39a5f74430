"""The GPUs of a process that a scheduler starts, as JAX is told: a process to a machine has all of them."""

import os
import socket
import subprocess
import sys

import pytest

JOINED = """
import jax
from lpcam_jax.machine import processes

processes.join()
print(jax.config.read("jax_cuda_visible_devices"), jax.process_count())
"""
SLURM = {
    "SLURM_JOB_ID": "4711",
    "SLURM_STEP_NODELIST": "localhost",
    "SLURM_NTASKS": "1",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
}


@pytest.mark.parametrize(
    ("tasks", "named", "gpus"),
    [("1(x2)", {}, "all"), ("8(x2)", {}, "0"), ("1,2", {}, "0"), ("1", {"JAX_LOCAL_DEVICE_IDS": "2,3"}, "2,3")],
)
def test_one_process_to_a_machine_has_all_gpus_and_one_of_several_has_its_own(tasks, named, gpus):
    with socket.create_server(("localhost", 0)) as free:
        port = free.getsockname()[1]
    tasks = SLURM | named | {"SLURM_STEP_TASKS_PER_NODE": tasks, "JAX_COORDINATOR_PORT": str(port)}
    command = [sys.executable, "-c", JOINED]
    joined = subprocess.run(command, env=os.environ | tasks, capture_output=True, text=True, check=False)
    assert (joined.stdout.split(), joined.returncode) == ([gpus, "1"], 0), joined.stderr
