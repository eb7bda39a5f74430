"""Run a chain: from image-level labels to a segmentation network, step by step, by one command.

    python -m lpcam_jax chain configs/shapes_chain.py --workdir runs/chain
    python -m lpcam_jax chain configs/folder_chain.py --data.root my_data --model.weights resnet50.pth \\
        --workdir runs/mine
    python -m lpcam_jax chain configs/folder_chain.py --data.root my_data --workdir runs/mine --dry-run
    python -m lpcam_jax chain configs/folder_chain.py --data.root my_data --workdir runs/mine --trial
    python -m lpcam_jax chain configs/folder_chain.py --data.root my_data --workdir runs/mine --without network

Each stage is trained (train.py) and applied (infer.py) in a folder of its own below --workdir; index.html compares what
each of them brought. A flag of a recipe goes to all stages that have it, `--STAGE.flag` to one, as in
--network.training.steps 2000, and `--RECIPE.flag` to those with that recipe; --STAGE.recipe FILE replaces the stage's.
The same command continues a stopped chain; with other settings, it repeats what depends on them, and says so first.
--trial tries all of it on sixteen pictures, and says what the whole will take.
"""

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import tyro

from ..chain.flags import OWN, Flag, group
from ..chain.page import write_chain_page
from ..chain.plan import Step, plan
from ..chain.progress import Progress, Verdict
from ..chain.recipe import Chain, load_chain
from ..chain.trial import PICTURES, Estimate, estimates, save_estimates, saved_estimates, small
from ..chain.watched import watch
from ..config.command_line import parse_flags
from ..config.recipes import trained_config, value_of_flag
from ..machine.errors import UserError
from ..machine.files import write_atomically
from ..machine.locks import in_use
from ..machine.stopping import Stopping
from .sweep import Arguments as SweepArguments

# Of the folder of a trial, which the next trial deletes; what has no such file is somebody's.
_MARK = "this_is_a_trial.txt"
# Exit codes of a program that was asked to end: by Ctrl-C, by SIGTERM.
_STOPPED = (130, 143)


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """A chain, and its folder."""

    recipe: tyro.conf.Positional[str]
    """a chain of the package, such as shapes_chain, or a file with get_chain(); all other flags are those of its
    stages' recipes"""
    workdir: str
    """folder of the chain; give the same folder again to continue"""
    without: tuple[str, ...] = ()
    """stages to leave out"""
    also: tuple[str, ...] = ()
    """optional stages of the recipe to run, too"""
    only: tuple[str, ...] = ()
    """stages to run, with all that they build on; empty: all"""
    dry_run: bool = False
    """print the steps, which are finished, and what is missing, and do nothing"""
    trial: bool = False
    """try all steps on sixteen pictures, in the folder trial of --workdir, and say what the whole will take on this
    machine; --dry-run then says it, too"""


def main(words: list[str]) -> None:
    """Run what is not finished.

    Args:
        words: the command line after the command's name.

    Raises:
        UserError: the chain cannot be run, or one of its steps has failed.
    """
    own, flags = _own_words(words)
    arguments = parse_flags(Arguments, own, command="chain", description=__doc__)
    workdir = Path(arguments.workdir)
    chain = load_chain(arguments.recipe)
    asked_for = {*arguments.only} & {*chain.names()}  # an unknown one is reported below
    chain = chain.chosen(without=arguments.without, also=(*arguments.also, *asked_for))
    chain = chain.only(arguments.only) if arguments.only else chain
    steps = plan(chain, flags, workdir)
    absent = _check(steps)
    trial = arguments.trial and not (absent or arguments.dry_run)
    progress = Progress(workdir)
    if trial:
        _try(chain, flags, steps, workdir)
    verdicts = progress.verdicts(steps)
    for line in _outline(steps, verdicts, progress, saved_estimates(workdir, steps), commands=arguments.dry_run):
        print(line)
    for line in absent:
        print(f"missing: {line}")
    if trial or arguments.dry_run:
        return
    if absent:
        raise UserError(f"{absent[0]}; nothing was begun.")
    with in_use(workdir, "chain", flag="--workdir"):
        with suppress(OSError):  # what was the trial of another chain is one of its own now
            (workdir / _MARK).unlink()
        _run(steps, progress, workdir)
    print(f"all steps are finished: open {workdir / 'index.html'}, which compares them.")


def _own_words(words: Sequence[str]) -> tuple[list[str], list[Flag]]:
    """The words of this command, and the flags of its stages."""
    first = next((n for n, word in enumerate(words) if word.startswith("-")), len(words))
    own, others = list(words[:first]), []
    if "-h" in words:
        return ["-h"], []
    for flag in group(words[first:]):
        # The recipe may stand behind a flag of ours.
        own.extend(flag.words) if flag.name in OWN else others.append(flag)
    return own, others


def _check(steps: Sequence[Step]) -> list[str]:
    """Parse every training's flags before anything begins; what is missing on the disk."""
    absent = []
    for step in steps:
        if step.action == "sweep":
            parse_flags(SweepArguments, step.words[1:], command="sweep", description="")
        saliency = value_of_flag("--saliency", step.words) if step.action == "apply" else None
        if saliency and not saliency.startswith("hf:") and not Path(saliency).exists():
            absent.append(f"{step.stage}: --saliency {saliency} does not exist")
        if step.action == "train":
            config = trained_config(step.words[1:])
            weights, root = config.model.weights, config.data.root
            made_here = any(weights == str(other.out) for other in steps)
            if weights and not weights.startswith("hf:") and not made_here and not Path(weights).exists():
                absent.append(f"{step.stage}: --model.weights {weights} does not exist")
            if root and not Path(root).exists():
                absent.append(f"{step.stage}: --data.root {root} does not exist")
    return absent


def _try(chain: Chain, flags: Sequence[Flag], steps: Sequence[Step], workdir: Path) -> None:
    """Do all steps on a few pictures, and keep what the whole will take."""
    folder, watched = workdir / "trial", {}
    tried = plan(chain, [*flags, *small(steps)], folder)

    def call(step: Step) -> int:
        watched[step.key] = watch(_command(step.words), preexec_fn=_end_with_parent)
        code = watched[step.key].code
        if code not in (0, *_STOPPED):
            raise UserError(f"the trial stops at {step.key}, which {_end(code)} Nothing else was begun.")
        return code

    with in_use(workdir, "chain", flag="--workdir"):
        _make_room(folder)
        _run(tried, Progress(folder), folder, call)
        save_estimates(workdir, estimates(watched, tried, steps), steps)
    print(
        f"\nEstimated from at most {PICTURES} pictures, on this machine as busy as it was "
        f"({folder} is the trial; delete it):"
    )


def _make_room(folder: Path) -> None:
    """Delete the trial that went before, and mark the folder of the new one."""
    try:
        if (folder / _MARK).is_file():
            shutil.rmtree(folder)
        elif folder.exists():
            raise UserError(f"{folder} is no trial of chain; move it, or choose another --workdir for --trial.")
    except OSError as error:
        raise UserError(f"cannot delete the last trial, {folder}: {error.strerror or error}; delete it.") from None
    write_atomically(folder / _MARK, b"Made by chain --trial, and deleted by the next; delete it at any time.\n")


def _outline(
    steps: Sequence[Step],
    verdicts: dict[str, Verdict],
    progress: Progress,
    estimated: dict[str, Estimate],
    *,
    commands: bool,
) -> list[str]:
    """What is going to be done, a line a step."""
    lines, width, left = [], max(len(step.key) for step in steps), 0.0
    for step in steps:
        verdict, took = verdicts[step.key], progress.time(step)
        if verdict.finished:
            state = f"finished, {took}"
        elif verdict.again:
            state = f"again: {verdict.again}"
            state += "; what it made is moved to replaced/" if verdict.aside and step.out.exists() else ""
        else:
            state = "to do" if took is None else "to be continued"
        if not verdict.finished and step.key in estimated:
            state += f", {estimated[step.key]}"
            left += estimated[step.key].seconds
        lines.append(f"{step.key:<{width}}  {state}")
        if commands:
            lines.append(f"    {step.command()}")
    if left and all(verdicts[step.key].finished or step.key in estimated for step in steps):
        lines.append(f"{'in all':<{width}}  about {timedelta(seconds=round(left))}")
    return lines


def _run(steps: Sequence[Step], progress: Progress, workdir: Path, call: Callable[[Step], int] | None = None) -> None:
    """Do what is not finished, and write the page after every step; call: runs a step."""
    call = call or (lambda step: _call(step.words))
    for number, step in enumerate(steps, 1):
        verdict = progress.verdicts(steps)[step.key]
        if not verdict.finished:
            if verdict.aside and (aside := progress.set_aside(step)):
                print(f"what {step.key} made before is in {aside}; delete it when you no longer need it.")
            print(f"\n[{number} of {len(steps)}] {step.key}: {step.command()}", flush=True)
            progress.begin(step, steps)
            write_chain_page(workdir, steps, progress)
            began = time.monotonic()
            code = None
            try:
                code = call(step)
            finally:
                progress.end(step, finished=code == 0, seconds=time.monotonic() - began)
                write_chain_page(workdir, steps, progress)
            if code in _STOPPED:
                raise KeyboardInterrupt
            if code:
                raise UserError(f"the chain stops at {step.key}, which {_end(code)} The same command continues there.")
        write_chain_page(workdir, steps, progress)


def _end(code: int) -> str:
    """How a step ended that has failed."""
    if code == -signal.SIGKILL:
        return "was killed, as Linux does where memory is full."
    return f"ended with code {code}: its last lines say why."


def _call(words: Sequence[str]) -> int:
    """Run a command of the package in a process of its own, which ends when this one does; its exit code.

    Asked to stop, it saves what it has: that is waited for, unless this program is asked once more.
    """
    # In a session of its own: a terminal would send it Ctrl-C, too.
    process = subprocess.Popen(_command(words), preexec_fn=_end_with_parent, start_new_session=True)
    try:
        with Stopping(tell=process.send_signal):
            return process.wait()
    finally:
        process.kill()
        process.wait()


def _command(words: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "lpcam_jax", *words]


def _end_with_parent() -> None:
    """Ask Linux to kill this process when its parent is killed; elsewhere it would finish its step."""
    with suppress(Exception):
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
