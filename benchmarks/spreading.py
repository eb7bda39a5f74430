"""LPCAM-A on the pictures of a trained run: what each of its parts brings, at other numbers of steps and powers.

    python -m benchmarks.spreading --ckpt runs/voc_animals

One pass over the pictures; each is mapped in all forms and scored: a second a form on two cores, with LPCAM-T two, so
take some of the pictures, as with `--every 8`, or the first form alone, `--forms 1`. Prints Markdown for SEEDS.md.
"""

import argparse
import dataclasses
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from lpcam_jax import directions
from lpcam_jax.data.records import Record
from lpcam_jax.data.sources import seed_source
from lpcam_jax.inference.finish import finished_maps
from lpcam_jax.inference.passes import finish_each
from lpcam_jax.inference.plan import Outputs
from lpcam_jax.machine import devices as machine
from lpcam_jax.machine.errors import UserError
from lpcam_jax.results.counts import SeedScoring
from lpcam_jax.systems.lpcam.maps import grid_maps, grid_maps_and_guide
from lpcam_jax.systems.lpcam.spreading import spread_over_picture
from lpcam_jax.systems.prototyping.stored_prototypes import load_prototypes
from lpcam_jax.training.run import Run
from lpcam_jax.training.state import inference_network, network_of, trained_state


class Form(NamedTuple):
    """One way to spread evidence."""

    power: int = 16
    deviation: float = 0.2
    steps: int = 5
    share: float = 0.25
    rivals: bool = True

    def __str__(self) -> str:
        said = [f"power {self.power}, {self.steps} step{'s' * (self.steps > 1)}"]
        said.append("any colour" if self.deviation == ANY_COLOUR else f"colours {self.deviation:g}")
        said += [] if self.share == Form().share else [f"share {self.share:g}"]
        said += [] if self.rivals else ["no rivals"]
        return ", ".join(said)


ANY_COLOUR, ALL = 1e3, 1e3
FORMS = (
    Form(),
    Form(share=0),
    Form(share=0.5),
    Form(share=ALL),
    Form(rivals=False),
    Form(deviation=ANY_COLOUR),
    Form(deviation=ANY_COLOUR, steps=3),
    Form(steps=1),
    Form(steps=3),
    Form(steps=8),
    Form(power=12),
    Form(power=24),
    Form(deviation=0.12),
    Form(deviation=0.3),
)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ckpt", required=True, help="the --workdir of a run with masks")
    parser.add_argument("--root", default="", help="where its data set is now")
    parser.add_argument("--every", type=int, default=1, help="take each n-th picture (default: all)")
    parser.add_argument("--forms", type=int, default=len(FORMS), help="only the first of them (default: all)")
    arguments = parser.parse_args()
    machine.remember_compilations()
    run, devices = Run.open(arguments.ckpt), machine.mesh()
    data = dataclasses.replace(run.config.data, root=arguments.root or run.config.data.root)
    config = dataclasses.replace(run.config, data=data)
    source, classes, inference = seed_source(config), len(run.class_names), config.inference
    prototypes, forms = load_prototypes(run), FORMS[: arguments.forms]
    made = {"LPCAM": directions(prototypes)}
    made |= {} if prototypes.taught is None else {"LPCAM-T": jnp.asarray(prototypes.taught)}
    stride = network_of(config, classes).backbone.strides[-1]
    outputs = ("lpcam_f", "lpcam")[: len(made)]  # names that `grid_maps` gives the directions, in this order
    scorings = {(title, form): SeedScoring(classes) for title in made for form in (None, *forms)}

    def forms_of(record: Record, scales: list[Outputs]) -> dict[tuple[str, Form | None], np.ndarray]:
        labels, size, maps = np.flatnonzero(record.labels), record.image.shape[:2], {}
        for title, name in zip(made, outputs, strict=True):
            evidence = [scale[name][..., labels] for scale in scales]
            positive = [np.maximum(one, 0) for one in evidence]
            maps[title, None] = finished_maps(positive, size, stride=stride, epsilon=0.0)
            for form in forms:
                options = {"power": form.power, "deviation": form.deviation, "steps": form.steps}
                options |= {"share": form.share}
                groups = [slice(None)] if form.rivals else [slice(n, n + 1) for n in range(len(labels))]
                maps[title, form] = np.concatenate(
                    [
                        spread_over_picture([one[..., group] for one in evidence], scales[0], size, **options)
                        for group in groups
                    ]
                )
        return maps

    only = range(0, len(source), arguments.every)
    results = inference_network(config, trained_state(run, devices=devices), classes, devices=devices).run(
        grid_maps,
        source,
        scales=inference.scales,
        batches=inference,
        constants=[jnp.concatenate(list(made.values()))],
        at_first=grid_maps_and_guide,
        description="heat maps",
        only=only,
    )
    for _, record, maps in finish_each(results, forms_of):
        if not isinstance(record, UserError) and record.mask is not None:
            for key, scoring in scorings.items():
                scoring.add(np.moveaxis(maps[key], 0, -1), np.flatnonzero(record.labels), record.mask)
    print(f"\n| {len(only)} pictures | mIoU | at | background | {' | '.join(run.class_names)} |")
    print(f"|---|---:|---:|---:|{'---:|' * classes}")
    for (title, form), scoring in scorings.items():
        best = scoring.report()["best"]
        name = title if form is None else f"{title.replace('LPCAM', 'LPCAM-A').replace('-T', ' of LPCAM-T')}: {form}"
        values = " | ".join("" if value is None else f"{100 * value:.1f}" for value in best["iou"])
        print(f"| {name} | {100 * best['miou']:.1f} | {best['threshold']:.2f} | {values} |")


if __name__ == "__main__":
    main()
