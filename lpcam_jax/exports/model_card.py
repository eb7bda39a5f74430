"""The README.md of a packed run, as the Hugging Face Hub shows it: what it is, how to use it, and its numbers."""

import json
from collections.abc import Iterator, Sequence

from .. import __version__
from ..systems.base import System
from ..training.run import Run

_FRONT_MATTER = """\
---
library_name: lpcam_jax
pipeline_tag: image-segmentation
tags:
- jax
- class-activation-maps
- weakly-supervised-segmentation
---
"""


def model_card(packed: Run, run: Run, *, results: Sequence[str] = ()) -> str:
    """The text, Markdown with the Hub's front matter.

    Args:
        packed: the packed run; the name of its folder is that of the model.
        run: what it was made of, which knows the last validation.
        results: lines about the scores of its results, as `System.describe` says them.
    """
    name, data = packed.directory.name, packed.config.data
    address = f"hf:OWNER/{name}"
    command = packed.system.next_command(packed.config, address).replace("python infer.py", "lpcam infer")
    in_python = []
    if type(packed.system).as_function is not System.as_function:
        command += " --images 'my/*.jpg'"
        in_python = ["", "```python", "import lpcam_jax as lp", "", f'result = lp.load("{address}")("cat.jpg")', "```"]
    lines = [
        f"# {name}",
        "",
        f"A network of kind `{packed.kind}` with a backbone `{packed.config.model.backbone}`, trained for "
        f"{packed.steps()[-1]:,} steps, packed by lpcam_jax {__version__}. `config.json` has every setting.",
        "",
        f"{len(packed.class_names)} classes: {', '.join(packed.class_names)}.",
        "",
        "## Use",
        "",
        "```",
        "pip install 'lpcam_jax[hub]'",
        command,
        "```",
        *in_python,
        "",
        "A folder with these files is used like the address.",
        "",
        "## Numbers",
        "",
        f"Trained on {_pictures(run)} of the data set `{data.source}`, split `{data.train}`.",
        "",
        *_validation(run),
    ]
    if results:
        lines += ["Of its results:", "", "```", *results, "```"]
    return _FRONT_MATTER + "\n".join(lines).rstrip() + "\n"


def _pictures(run: Run) -> str:
    """How many pictures it was trained on, if the run says so."""
    try:
        return f"{json.loads((run.directory / 'pictures.json').read_text(encoding='utf-8'))['pictures']:,} pictures"
    except (OSError, ValueError, KeyError, TypeError):
        return "pictures"


def _validation(run: Run) -> Iterator[str]:
    """The last validation, if the run has one."""
    log = run.metrics_file.read_text(encoding="utf-8").splitlines() if run.metrics_file.exists() else []
    for measure in ("mAP", "mIoU"):
        found = [line for line in log if f'"validation_{measure.lower()}"' in line and line.endswith("}")]
        if found:
            values = json.loads(found[-1])
            score = 100 * values[f"validation_{measure.lower()}"]
            yield f"Validation at step {values['step']:,}: {measure} {score:.1f} %."
            yield ""
