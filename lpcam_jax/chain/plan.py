"""From a chain to the commands that run it, each with its folder and the steps whose results it reads."""

import hashlib
import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from os.path import normpath
from pathlib import Path
from typing import Any, Literal, NamedTuple

from ..config.json import to_json
from ..config.recipes import load_recipe, value_of_flag
from ..config.registry import system_of
from ..machine.errors import UserError
from ..systems.base import HeatMapSystem
from .flags import Flag, StageFlags, group, share_out
from .recipe import Chain, Stage

Action = Literal["train", "apply", "score", "sweep"]


class Step(NamedTuple):
    """One command of a chain.

    Attributes:
        stage: name of the stage.
        action: train; apply: what was trained to pictures; score: the result, on the pictures that are scored; sweep:
            vary the parameters of what was trained.
        words: of `python -m lpcam_jax`.
        out: the folder it writes.
        takes: the folders of the earlier steps whose results it reads.
        recipe: digest of the recipe, as far as the step depends on it.
        data: folder of the data set; "": it is drawn.
        config: of the stage's recipe, before flags.
    """

    stage: str
    action: Action
    words: tuple[str, ...]
    out: Path
    takes: tuple[Path, ...]
    recipe: str
    data: str
    config: Any

    @property
    def key(self) -> str:
        """Its name, such as irn/train."""
        return f"{self.stage}/{self.action}"

    def flags(self) -> list[Flag]:
        """The flags of its command, without the recipe, which has a digest of its own."""
        return group(self.words[next(n for n, word in enumerate(self.words) if word.startswith("--")) :])

    def command(self) -> str:
        """What to type to run it alone."""
        return f"python -m lpcam_jax {shlex.join(self.words)}"


def plan(chain: Chain, flags: Sequence[Flag], workdir: Path) -> list[Step]:
    """The steps of a chain, in order.

    Args:
        chain: the stages.
        flags: of the command line, beside the chain's own.
        workdir: the chain's folder.

    Raises:
        UserError: a recipe cannot be used, a stage lacks what it learns from, or a flag belongs to none.
    """
    recipes, flags = _recipes(chain, flags)
    configs = {name: load_recipe(str(path)) for name, path in recipes.items()}
    sweeps = {}
    for stage in chain.stages:
        if stage.sweeps:
            _check_source(stage, stage.takes, configs)
            sweeps[stage.name] = _sweep_words(stage, flags, recipes[stage.name].stem)
    others = {name: config for name, config in configs.items() if name not in sweeps}
    of_others = [flag for flag in flags if flag.name.partition(".")[0] not in sweeps]
    given = share_out(of_others, others, {name: recipes[name].stem for name in others})
    steps: list[Step] = []
    maps: str | None = None  # the stage that made heat maps last
    masks: str | None = None  # and masks
    for stage in chain.stages:
        name, config = stage.name, configs[stage.name]
        if stage.sweeps:
            steps.append(_sweep(stage, sweeps[name], workdir, steps))
            continue
        system = system_of(config)
        source = {"labels": None, "maps": stage.takes or maps, "masks": stage.takes or masks}[system.takes]
        _check_source(stage, source, configs)
        own = share_out(_flags_of(stage, chain, source, workdir), {name: config}, {})[name]
        words = StageFlags(own.train + given[name].train, own.infer + given[name].infer)
        steps += _steps(name, str(recipes[name]), config, words, workdir, source, steps)
        maps = name if isinstance(system, HeatMapSystem) else maps
        masks = name
    return steps


def _recipes(chain: Chain, flags: Sequence[Flag]) -> tuple[dict[str, Path], list[Flag]]:
    """The recipe file of every stage, and the flags that name none."""
    recipes, left = {stage.name: Path(normpath(chain.folder / stage.recipe)) for stage in chain.stages}, []
    for flag in flags:
        name, _, field = flag.name.partition(".")
        if field == "recipe" and name in recipes:
            recipes[name] = Path(" ".join(flag.values()))
        else:
            left.append(flag)
    return recipes, left


def _check_source(stage: Stage, source: str | None, configs: Mapping[str, Any]) -> None:
    """Raise UserError if a stage cannot learn from the one that it takes."""
    needs = "" if stage.sweeps else system_of(configs[stage.name]).takes
    if needs == "maps" and source is None:
        raise UserError(f"the stage {stage.name} learns from heat maps, and no stage before it makes any.")
    if source is not None and source not in configs:
        raise UserError(f"the stage {stage.name} learns from {source}, which is left out; leave it out as well.")
    if stage.sweeps and configs[source].kind != "classifier":
        raise UserError(f"the stage {stage.name} sweeps the parameters of a classifier, which {source} is not.")
    if needs == "maps" and not isinstance(system_of(configs[source]), HeatMapSystem):
        raise UserError(f"the stage {stage.name} learns from heat maps, and {source} makes none.")


def _flags_of(stage: Stage, chain: Chain, source: str | None, workdir: Path) -> list[Flag]:
    """The flags that the chain's file gives a stage."""
    runs = {f"{{{name}}}": str(_run(workdir, name)) for name in chain.names()}
    words = [runs.get(word, word) for word in (*stage.flags, *stage.after.get(source, ()))]
    if lost := [word for word in words if word.startswith("{")]:
        raise UserError(f"the stage {stage.name} needs the run of {lost[0]}, which is not in the chain.")
    return group(words)


def _steps(
    name: str,
    recipe: str,
    config: Any,
    words: StageFlags,
    workdir: Path,
    source: str | None,
    before: Sequence[Step],
) -> Iterator[Step]:
    """The two or three steps of a stage."""
    system, run, out = system_of(config), _run(workdir, name), _results(workdir, name)
    reads, learns_from, refines = (), (), ()
    data = value_of_flag("--data.root", words.train) or config.data.root
    if source is not None:
        reads = (_results(workdir, source),)
        folder = reads[0] if system.takes == "maps" else reads[0] / _mask_folder(source, before)
        learns_from = (f"--data.{system.takes}", str(folder))
        refines = ("--maps", str(folder)) if system.takes == "maps" else ()
    trains = ("train", recipe, *words.train, *learns_from, "--workdir", str(run))
    others = tuple(step.out for step in before if step.action == "train" and str(step.out) in words.train)
    yield Step(name, "train", trains, run, (*reads, *others), _digest(config), data, config)
    applies = ("infer", "--ckpt", str(run), *refines, *words.infer, "--out", str(out))
    yield Step(
        name, "apply", applies, out, (run, *reads) if refines else (run,), _digest(config.inference), data, config
    )
    split = value_of_flag("--split", words.infer)
    if split not in (None, value_of_flag("--data.seeds", words.train) or config.data.seeds):
        flags = group(words.train)
        of_data = [flag for flag in flags if flag.name.startswith("data.") or flag.name in ("limit", "seed")]
        scores = workdir / name / "scores"
        scored = ("evaluate", recipe, *(word for flag in of_data for word in flag.words))
        made = out if isinstance(system, HeatMapSystem) else out / system.masks
        scored += ("--predictions", str(made), "--out", str(scores))
        yield Step(name, "score", scored, scores, (out,), _digest(config.data), data, config)


def _sweep_words(stage: Stage, flags: Sequence[Flag], recipe: str) -> tuple[str, ...]:
    """The words of the command line for a stage that sweeps.

    Raises:
        UserError: a flag is for this stage, and it has no such flag.
    """
    words = []
    for flag in flags:
        first, _, rest = flag.name.partition(".")
        if flag.name == "limit" or (first in (stage.name, recipe) and rest == "limit"):
            words += flag.of("limit").words
        elif first == stage.name and rest == "seeds":
            words += flag.of("seeds").words
        elif first == stage.name:
            raise UserError(
                f"{flag.words[0]}: {first} sweeps, and has --{first}.seeds and --{first}.limit alone; all else is that "
                f"of {stage.takes}."
            )
    return tuple(words)


def _sweep(stage: Stage, words: Sequence[str], workdir: Path, before: Sequence[Step]) -> Step:
    """The step of a stage that sweeps, which depends on settings that the run it takes has noted."""
    run, out = _run(workdir, stage.takes), _results(workdir, stage.name)
    trains = next(step for step in before if step.key == f"{stage.takes}/train")
    noted = [
        flag.words
        for flag in trains.flags()
        if flag.name.startswith(("prototypes.", "inference.", "data.")) and flag.name != "data.root"
    ]
    settings = _digest_of([to_json(trains.config.prototypes), to_json(trains.config.inference), noted])
    sweeps = ("sweep", "--ckpt", str(run), *stage.flags, *words, "--out", str(out))
    return Step(stage.name, "sweep", sweeps, out, (run,), settings, trains.data, trains.config)


def _mask_folder(stage: str, steps: Sequence[Step]) -> str:
    """The folder of the masks in the results of a stage."""
    step = next(step for step in steps if step.key == f"{stage}/apply")
    return "seeds" if value_of_flag("--refine", step.words) == "none" else system_of(step.config).masks


def _run(workdir: Path, stage: str) -> Path:
    return workdir / stage / "run"


def _results(workdir: Path, stage: str) -> Path:
    return workdir / stage / "results"


def _digest(config: Any) -> str:
    return _digest_of(to_json(config))


def _digest_of(values: Any) -> str:
    """16 hex digits of plain JSON values."""
    text = json.dumps(values, sort_keys=True)
    return hashlib.blake2b(text.encode(errors="surrogateescape"), digest_size=8).hexdigest()
