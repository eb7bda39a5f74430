"""A small MCTformer on the drawn scenes, from scratch: `configs/shapes_mctformer.py`, for a tenth of its time."""

import json

import pytest

pytestmark = [pytest.mark.rest, pytest.mark.optimized]

METHODS = ["mctformer", "mctformer_lpcam"]


def test_it_learns_the_classes_and_both_kinds_of_maps_are_scored(program, tmp_path):
    run, out = tmp_path / "run", tmp_path / "maps"
    words = ("--data.scenes", 200, "--training.epochs", 8)
    trained = program("train.py", "configs/shapes_mctformer.py", *words, "--workdir", run)
    assert trained.code == 0, trained.err
    logged = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in logged if "loss" in line]
    measured = [line["validation_map"] for line in logged if "validation_map" in line]
    assert losses[-1] < 0.8 * losses[0]
    assert measured[-1] > 0.45  # chance is 0.3; the whole recipe comes to 0.85

    mapped = program("infer.py", "--ckpt", run, "--out", out, "--refine", "none", "--pages", "none", "--limit", 60)
    assert mapped.code == 0, mapped.err
    metrics = json.loads((out / "metrics.json").read_text())
    assert list(metrics["scores"]) == METHODS
    assert metrics["scored"] == 60
    # The protocol is printed beside: how many pictures, which maps, at which threshold.
    for name in ("MCTformer", "MCTformer + LPCAM"):
        assert name in mapped.out
    print(mapped.out, json.dumps(metrics["protocol"], indent=1), sep="\n")
    for method in METHODS:
        assert 0 < metrics["scores"][method]["best"]["miou"] < 1
