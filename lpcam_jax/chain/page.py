"""index.html of a chain: each stage with its settings and scores, and any picture through all of them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..report.page import url, write_page
from .numbers import numbers
from .plan import Step
from .progress import Progress, Verdict

# What the page leads to, of what a stage may have written.
_PAGES = {"gallery": "index.html", "prototypes": "prototypes.html", "parameters": "sweep.png"}
# Pictures one can choose from.
_SHOWN = 60


def write_chain_page(workdir: Path, steps: Sequence[Step], progress: Progress) -> None:
    """Write the page.

    Args:
        workdir: the chain's folder.
        steps: of the chain.
        progress: what is finished.

    Raises:
        UserError: it cannot be written.
    """
    verdicts = progress.verdicts(steps)
    stages = list(dict.fromkeys(step.stage for step in steps))
    data = {
        "stages": [
            _stage(name, [step for step in steps if step.stage == name], verdicts, progress, workdir) for name in stages
        ],
        "pictures": _pictures(workdir, steps),
    }
    finished = sum(verdict.finished for verdict in verdicts.values())
    summary = [f"{finished} of {len(steps)} steps are finished.", f"Folder: {workdir}"]
    write_page(workdir / "index.html", "chain.html", title=" → ".join(stages), summary=summary, data=data)


def _stage(
    name: str, steps: Sequence[Step], verdicts: Mapping[str, Verdict], progress: Progress, workdir: Path
) -> dict[str, Any]:
    """What the page says of a stage."""
    results = next(step.out for step in steps if step.action in ("apply", "sweep"))
    scored = next((step.out for step in steps if step.action == "score"), results)
    # What a stage made with other settings, and has not yet set aside, is not shown as what it makes with these.
    is_done = all(verdicts[step.key].finished for step in steps if step.action in ("apply", "sweep", "score"))
    pages = [(text, results / file) for text, file in _PAGES.items() if is_done]
    return {
        "name": name,
        "kind": "sweep" if steps[0].action == "sweep" else steps[0].config.kind,
        "steps": [
            {
                "action": step.action,
                "state": "finished" if verdicts[step.key].finished else "not finished",
                "time": "" if (time := progress.time(step)) is None else str(time),
                "command": step.command(),
            }
            for step in steps
        ],
        "settings": [" ".join(flag.words) for flag in steps[0].flags() if flag.name not in ("workdir", "out")],
        "scores": [{"what": number.what, "miou": number.miou} for number in (numbers(scored) if is_done else ())],
        "links": [
            {"text": text, "url": url(page.relative_to(workdir).as_posix())} for text, page in pages if page.exists()
        ],
    }


def _pictures(workdir: Path, steps: Sequence[Step]) -> list[dict[str, Any]]:
    """Pictures with the overlays that the stages made of them, those that most stages have first."""
    overlays: dict[str, list[dict[str, str]]] = {}
    for step in steps:
        if step.action == "apply":
            folder = step.out / "overlays"
            for file in sorted(folder.rglob("*.jpg")):
                name = file.relative_to(folder).with_suffix("").as_posix()
                shown = {"stage": step.stage, "url": url(file.relative_to(workdir).as_posix())}
                overlays.setdefault(name, []).append(shown)
    names = sorted(overlays, key=lambda name: (-len(overlays[name]), name))[:_SHOWN]
    return [{"name": name, "rows": overlays[name]} for name in names]
