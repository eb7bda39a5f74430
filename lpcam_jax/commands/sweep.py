"""Seed quality over the method's parameters: tau, mu_f, mu_b, K and the seed threshold (paper, Figure 5).

    python -m lpcam_jax sweep --ckpt runs/demo --out sweep/
    python -m lpcam_jax sweep --ckpt runs/demo --out sweep/ --seeds 3 > table.md

Varies one parameter at a time around the run's own values. The pictures are the run's --data.seeds, clustered anew and
scored; the run is not changed. Writes sweep.png and sweep.json and prints a Markdown table.
"""

import dataclasses
import sys
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

from ..config import to_json
from ..config.command_line import parse_flags
from ..data.sources import seed_source, with_labels
from ..machine import devices
from ..machine.errors import UserError
from ..machine.files import write_atomically, write_json
from ..machine.locks import in_use
from ..training.run import Run


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """A run, and output folder."""

    ckpt: str
    """the --workdir of a run of train.py, on a data set with masks"""
    out: str
    """folder for sweep.png and sweep.json"""
    root: str = ""
    """current folder of the run's data set; empty: the one used for training"""
    seeds: int = 1
    """number of clusterings of each setting, with the run's own random seed and the following ones"""
    limit: int | None = None
    """use only the first LIMIT pictures"""


def main(words: list[str]) -> None:
    """Run the sweep, print and write the results.

    Args:
        words: the command line after the command's name.

    Raises:
        UserError: the run or its data set cannot be used, or the output cannot be written.
    """
    arguments = parse_flags(Arguments, words, command="sweep", description=__doc__)
    if arguments.seeds < 1:
        raise UserError(f"--seeds is {arguments.seeds}; cluster at least once.")
    from ..report.sweep import sweep_figure, sweep_table
    from ..results.scoring import scoring_protocol
    from ..systems.lpcam.sensitivity import sweep_parameters
    from ..training.state import trained_state

    devices.start()
    mesh = devices.mesh()
    run = Run.open(arguments.ckpt).expect("classifier")
    data = dataclasses.replace(run.config.data, root=arguments.root or run.config.data.root)
    limit = run.config.limit if arguments.limit is None else arguments.limit
    config = dataclasses.replace(run.config, data=data, limit=limit)
    source = with_labels(seed_source(config), data.seeds)
    if not source.has_masks:
        raise UserError(f"the data set {data.root or data.source} has no masks to score against.")
    if tuple(source.class_names) != run.class_names:
        raise UserError(
            f"{arguments.ckpt} was trained on {', '.join(run.class_names)}, the data set has "
            f"{', '.join(source.class_names)}; name the data set of the run with --root."
        )
    state = trained_state(run, devices=mesh)
    seeds = list(range(config.seed, config.seed + arguments.seeds))
    values = to_json(config)
    protocol = {
        **scoring_protocol(config, source),
        "run": run.directory.name,
        "step": int(state.step),
        "crf": False,
        "seeds": seeds,
        "prototypes": values["prototypes"],
        "inference": values["inference"],
    }
    out = Path(arguments.out)
    with in_use(out, "sweep", flag="--out"):
        _expect_writable(out)
        with redirect_stdout(sys.stderr):  # only the table goes to stdout
            result = sweep_parameters(config, state, source, seeds=seeds, devices=mesh)
        print(sweep_table(result))
        sweep_figure(out / "sweep.png", result)
        write_json(out / "sweep.json", {"protocol": protocol, **result})


def _expect_writable(out: Path) -> None:
    """UserError where nothing can be written, before the work; an earlier sweep stays until this one is done."""
    probe = out / ".sweep.json"
    write_atomically(probe, b"")
    probe.unlink()
