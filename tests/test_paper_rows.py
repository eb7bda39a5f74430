"""The rows of the paper's tables, begun: their chains on archives of the published layouts, in tiny networks."""

from pathlib import Path

import pytest
import tiny_benchmarks as tiny
from conftest import REPOSITORY

from lpcam_jax.chain.paper import ENTRIES, FIGURE_5, TABLE_1, errors, found, sensitivity, stages_of
from lpcam_jax.chain.recipe import Chain
from lpcam_jax.commands import chain as chain_command

RESNET = "--model.blocks 1 1 1 1 --model.width 4 --model.stem-width 4"
WIDERESNET = "--model.width 4"
ONE_EPOCH = "--training.epochs 1 --training.batch-size 2 --training.crop 64"
TWO_STEPS = "--training.steps 2 --training.batch-size 2 --training.accumulate 1 --training.crop 64"
CLUSTERS = "--prototypes.clusters 2 --prototypes.sample 64"
ONE_SCALE = "--inference.scales 1 --inference.max-shapes 1"
# What makes a recipe of the paper small, by the part of its name after the data set's; all else is the recipe's own.
SMALL = {
    "": f"{RESNET} {ONE_EPOCH} --training.long-side 64 96 {CLUSTERS} {ONE_SCALE}",
    "irn": f"{RESNET} {ONE_EPOCH} --training.radius 2 --inference.max-shapes 1",
    "amn": f"{RESNET} {ONE_EPOCH} --model.rates 1 2 {ONE_SCALE}",
    "edam": f"{WIDERESNET} {ONE_EPOCH} --training.long-side 64 96 --head.width 8 {ONE_SCALE}",
    "mctformer": "--model.patch 8 --model.dim 16 --model.depth 4 --model.head-dim 8 --model.position-grid 4 "
    f"{ONE_EPOCH} --training.crop 32 {CLUSTERS} {ONE_SCALE}",
    "psa": f"{WIDERESNET} {ONE_EPOCH} --training.radius 2 --inference.steps 4 --inference.max-shapes 1",
    "deeplabv2": f"{RESNET} {TWO_STEPS} --model.rates 1 2 {ONE_SCALE}",
    "deeplab_wrn38": f"{WIDERESNET} {TWO_STEPS} --model.head-width 8 {ONE_SCALE}",
    "upernet": "--model.dim 8 --model.depths 1 1 1 1 --model.head-dim 4 --model.window 4 --head.width 8 "
    f"--head.auxiliary-width 8 {TWO_STEPS} --training.fit 64 96 --inference.fit 64 96 --inference.max-shapes 1",
}


def small(chain: Chain) -> list[str]:
    """The flags of SMALL for the recipes that are in a chain."""
    words = []
    for recipe in dict.fromkeys(Path(stage.recipe).stem for stage in chain.stages):
        words += SMALL[recipe.partition("_")[2]].replace("--", f"--{recipe}.").split()
    return words


def repeated(chain: Chain) -> list[str]:
    """The stages with the recipe of an earlier one."""
    recipes = [stage.recipe for stage in chain.stages]
    return [stage.name for number, stage in enumerate(chain.stages) if stage.recipe in recipes[:number]]


ARCHIVES = {"voc12": tiny.voc_archives, "coco14": tiny.coco_archives_with_val}


@pytest.mark.rest
@pytest.mark.minutes
@pytest.mark.parametrize("data", ARCHIVES)
def test_rows_of_the_paper_from_archives_to_numbers(program, monkeypatch, tmp_path, data):
    """Every stage of every row on VOC; on COCO, where they are begun alike, one with each recipe (test_chain.py plans
    the others)."""
    chain = Chain(stages_of(data))
    left_out = repeated(chain) if data == "coco14" else []
    which = ("--without", *left_out) if left_out else ("--only", *chain.names())

    def call(words) -> int:
        finished = program("lpcam_jax.__main__", *words)
        print(finished.err[-2000:])
        return finished.code

    monkeypatch.setattr(chain_command, "_call", call)  # in this process, which has the programs of other tests
    root, workdir = ARCHIVES[data](tmp_path / "archives"), tmp_path / "W"
    words = (
        "--data.root",
        root,
        "--data.prepared",
        tmp_path / "prepared",
        "--limit",
        8,
        "--pages",
        "none",
        *small(chain),
    )
    file = REPOSITORY / "configs" / "paper" / f"{data}.py"
    finished = program("lpcam_jax.__main__", "chain", file, "--workdir", workdir, *which, *words)
    assert finished.code == 0, finished.err
    assert "all steps are finished" in finished.out
    for entry in ENTRIES:
        for stage, ours in zip(entry.stages, found(entry, workdir), strict=True):
            if entry.data == data and not entry.saliency and stage not in left_out:
                assert ours is not None, f"{entry.system}, {entry.what}: {stage} has no number"
    if data == "voc12":
        assert all(errors(method, workdir) for method in TABLE_1)
        assert all(best in sensitivity(workdir)[parameter] for parameter, (best, _) in FIGURE_5.items())
    for words in (("--data", data), *([("--figure", "5")] if data == "voc12" else [])):
        printed = program("lpcam_jax.__main__", "paper", "--results", workdir, *words)
        assert printed.code == 0, printed.err
        assert "ours" in printed.out
