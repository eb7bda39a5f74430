"""What train.py, infer.py and the commands do with every system: one contract, tried with the tiny recipe of each kind.

What is special to a system is in the tests of its own.
"""

import json
import re
import shutil
from itertools import count
from pathlib import Path

import jax
import numpy as np
import pytest
from conftest import Made, stored_checkpoint
from test_commands import assert_one_line_error
from test_evaluate import strictly_parsed
from test_gallery import embedded
from tiny_recipes import TINY

from lpcam_jax.config import registry
from lpcam_jax.config.recipes import load_recipe
from lpcam_jax.data.sources import seed_source
from lpcam_jax.training import loop
from lpcam_jax.training.run import Run

KINDS = registry.kinds()
STEPS = 6


@pytest.fixture(params=KINDS, scope="module")  # one after the other: each is traced once by a worker
def kind(request) -> str:
    return request.param


@pytest.fixture
def words(kind, tiny_runs) -> list[str]:
    """Of train.py; --workdir is missing."""
    return tiny_runs.words(kind)


@pytest.fixture
def run(kind, tiny_runs) -> Made:
    """The finished run; look, do not touch."""
    return tiny_runs.run(kind)


@pytest.fixture
def results(kind, tiny_runs) -> Made:
    """What infer.py made with it; look, do not touch."""
    return tiny_runs.results(kind)


@pytest.fixture
def run_copy(run, tmp_path) -> Path:
    return shutil.copytree(run.directory, tmp_path / "run")


@pytest.fixture
def results_copy(results, tmp_path) -> Path:
    return shutil.copytree(results.directory, tmp_path / "results")


@pytest.fixture
def command(program):
    """`command("seeds", *words)`: what a command printed, which ended well."""

    def run(*words) -> str:
        finished = program("lpcam_jax.__main__", *words)
        assert finished.code == 0, finished.err
        return finished.out

    return run


def contents(folder: Path) -> dict[str, bytes | list]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): origins_in(path) if path.name.startswith("origins.") else path.read_bytes()
        for path in files
    }


def origins_in(path: Path) -> list:
    """What origins say but for the time; threads note them in any order."""
    return sorted(json.loads(line)[:-1] for line in path.read_text().splitlines())


def times(folder: Path) -> dict[str, int]:
    """When its files were written, but those that say of the whole what it is: they are written anew."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.suffix not in (".json", ".html"))
    return {path.relative_to(folder).as_posix(): path.stat().st_mtime_ns for path in files if path.parent != folder}


def ids_of(run: Made) -> list[str]:
    return list(seed_source(Run.open(run.directory).config).ids)


def test_every_kind_is_tried():
    assert set(TINY) == set(KINDS)


# Training.


def test_it_trains_to_its_last_step(kind, run):
    opened = Run.open(run.directory)
    assert (opened.kind, opened.steps()) == (kind, [4, STEPS])
    lines = [json.loads(line) for line in opened.metrics_file.read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert len(losses) == STEPS
    assert np.isfinite(losses).all()
    assert f"{run.directory} is ready: python infer.py --ckpt {run.directory} --out {opened.system.makes}" in run.out


def test_the_same_command_does_nothing_when_all_is_done(program, words, run_copy):
    before = contents(run_copy), times(run_copy)
    finished = program(*words, "--workdir", run_copy)
    assert finished.code == 0, finished.err
    assert (contents(run_copy), times(run_copy)) == before


# Compiled as for users, one kind stands for all: they share the loop.
@pytest.mark.parametrize(
    "kind", [pytest.param("classifier", marks=pytest.mark.optimized), *(k for k in KINDS if k != "classifier")]
)
def test_a_run_that_was_stopped_ends_with_the_same_bits(kind, tiny_runs, run, monkeypatch, tmp_path):
    real, workdir = loop.training_batches, tmp_path / "stopped"

    def stopping(*arguments, start, **options):
        for step, batch in zip(count(start + 1), real(*arguments, start=start, **options)):
            if step == STEPS // 2 + 1:
                raise KeyboardInterrupt
            yield batch

    with monkeypatch.context() as patch:
        patch.setattr(loop, "training_batches", stopping)
        stopped = tiny_runs.train(kind, workdir)
    assert stopped.code == 130
    assert stopped.err.strip().endswith("stopped; the same command continues where it was.")
    assert Run.open(workdir).steps() == [2]
    continued = tiny_runs.train(kind, workdir)
    assert continued.code == 0, continued.err
    for step in (4, STEPS):
        assert_same(stored_checkpoint(workdir, step), stored_checkpoint(run.directory, step))
    found, expected = (
        {name: content for name, content in contents(folder).items() if not name.startswith("checkpoints/")}
        for folder in (workdir, run.directory)
    )
    assert found == expected


def assert_same(found, expected) -> None:
    """The same arrays under the same names."""
    pairs = [dict(jax.tree_util.tree_leaves_with_path(tree)) for tree in (found, expected)]
    assert pairs[0].keys() == pairs[1].keys()
    for path, value in pairs[1].items():
        np.testing.assert_array_equal(pairs[0][path], value, strict=True, err_msg=jax.tree_util.keystr(path))


def test_other_settings_are_named(program, words, run_copy):
    before = contents(run_copy)
    finished = program(*words, "--workdir", run_copy, "--training.learning-rate", 0.5, "--seed", 7)
    assert_one_line_error(
        finished, r"holds a run with other settings \(training.learning_rate \S+ -> 0.5, seed\); choose another"
    )
    assert contents(run_copy) == before


def test_a_run_of_another_kind_is_not_continued(program, kind, tiny_runs, run_copy):
    other = KINDS[KINDS.index(kind) - 1]
    finished = program(*tiny_runs.words(other), "--workdir", run_copy)
    assert_one_line_error(finished, rf"holds a run with other settings \({kind} -> {other}\)")


def test_an_unknown_stage(program, words, kind, tmp_path):
    finished = program(*words, "--workdir", tmp_path / "run", "--stages", "nonsense")
    known = ", ".join(registry.load_system(kind).stages)
    assert_one_line_error(finished, f"this recipe has no stage 'nonsense'; it has {known}")
    assert not (tmp_path / "run").exists()


def test_a_number_that_nothing_can_be_computed_with(program, words, tmp_path):
    finished = program(*words, "--workdir", tmp_path / "run", "--training.batch-size", 0)
    assert_one_line_error(finished, "--training.batch-size is 0; use at least 1")
    assert not (tmp_path / "run").exists()


FREEZING = [
    kind for kind in KINDS if kind in TINY and "frozen" in registry.load_system(kind).config().training.__dict__
]


@pytest.mark.parametrize("kind", FREEZING)
def test_a_frozen_part_that_the_backbone_does_not_have(program, kind, tiny_runs, tmp_path):
    words = (*tiny_runs.words(kind), "--workdir", tmp_path / "run", "--limit", 4)
    finished = program(*words, "--training.frozen", "conv1", "layer9")
    known = "conv1, bn1, layer1, layer2, layer3, layer4"
    assert_one_line_error(finished, f"--training.frozen layer9: the backbone has no such part; it has {known}")


# Results.


def test_every_picture_has_its_results(kind, run, results):
    out, ids = results.directory, ids_of(run)
    assert len(ids) == TINY[kind].pictures
    assert all((out / TINY[kind].result.format(name)).is_file() for name in ids)
    assert all((out / "overlays" / f"{name}.jpg").is_file() for name in ids)
    system = registry.load_system(kind)
    flags = system.flags(ckpt=str(run.directory), out=str(out))
    said = f"{len(ids)} pictures are in {out}: look at index.html, use {system.results(flags)}."
    assert results.out.splitlines()[-1] == said
    assert not list(out.rglob(".lpcam_jax*"))


def test_the_metrics_say_what_they_were_made_with(kind, run, results):
    metrics = strictly_parsed(results.directory / "metrics.json")
    assert metrics["protocol"] == strictly_parsed(results.directory / "protocol.json")
    assert metrics["protocol"]["class_names"] == list(Run.open(run.directory).class_names)
    assert (metrics["protocol"]["step"], metrics["skipped"]) == (STEPS, [])
    assert metrics["pictures"] == metrics["scored"] == TINY[kind].pictures


def test_the_page_shows_every_picture(run, results):
    data = embedded((results.directory / "index.html").read_text(encoding="utf-8"))
    assert [entry["id"] for entry in data["entries"]] == ids_of(run)
    for entry in data["entries"]:
        for key in ("photo", *(pane["key"] for pane in data["panes"])):
            assert list((results.directory / "gallery" / key).glob(f"{entry['id']}.*")), key


def test_nothing_is_made_twice(program, run, results, results_copy):
    before = contents(results_copy), times(results_copy)
    finished = program("infer.py", "--ckpt", run.directory, "--out", results_copy)
    assert finished.code == 0, finished.err
    assert (contents(results_copy), times(results_copy)) == before
    assert finished.out.splitlines()[:-1] == results.out.splitlines()[:-1]


def test_what_is_missing_is_made_again_and_only_that(program, kind, run, results, results_copy):
    ids = ids_of(run)
    for name in ids[::2]:
        (results_copy / TINY[kind].result.format(name)).unlink()
    for name in ("metrics.json", "index.html"):
        (results_copy / name).unlink()
    kept = [results_copy / TINY[kind].result.format(name) for name in ids[1::2]]
    before = [path.stat().st_mtime_ns for path in kept]
    finished = program("infer.py", "--ckpt", run.directory, "--out", results_copy)
    assert finished.code == 0, finished.err
    assert [path.stat().st_mtime_ns for path in kept] == before
    # The same bits: shapes and batches are chosen for the whole data set, whatever part of it is left.
    assert contents(results_copy) == contents(results.directory)


def test_results_of_another_protocol_are_not_mixed(program, run, results_copy):
    protocol = strictly_parsed(results_copy / "protocol.json")
    (results_copy / "protocol.json").write_text(json.dumps(protocol | {"step": 4}))
    before = contents(results_copy)
    finished = program("infer.py", "--ckpt", run.directory, "--out", results_copy)
    assert_one_line_error(finished, r"holds .* of another model or protocol; choose another --out or delete it")
    assert contents(results_copy) == before


def test_files_of_others_are_no_results_and_stay(program, kind, run, tmp_path):
    out = tmp_path / "mine"
    file = out / TINY[kind].result.format(ids_of(run)[-1])
    file.parent.mkdir(parents=True)
    file.write_bytes(b"a true mask, say")
    for _ in range(2):  # the second call finds what the first left
        finished = program("infer.py", "--ckpt", run.directory, "--out", out)
        line = (
            rf"mine holds files that are not of this program \({file.relative_to(out)} is one\); choose another --out"
        )
        assert_one_line_error(finished, line)
        assert contents(out) == {file.relative_to(out).as_posix(): b"a true mask, say"}


def test_a_run_without_a_checkpoint(program, run, tmp_path):
    (tmp_path / "config.json").write_bytes((run.directory / "config.json").read_bytes())
    finished = program("infer.py", "--ckpt", tmp_path, "--out", tmp_path / "out")
    assert_one_line_error(finished, r"has no (checkpoint|prototypes) yet; run train.py")


# What other commands make of them.


def test_evaluate_gives_the_same_scores(command, kind, tiny_runs, results, tmp_path):
    recipe = tiny_runs.recipe(kind)
    command("evaluate", recipe, "--predictions", results.directory, "--out", tmp_path / "scores")
    found, expected = (strictly_parsed(folder / "metrics.json") for folder in (tmp_path / "scores", results.directory))
    assert found["scores"] == expected.get("maps", expected)["scores"]
    assert found["protocol"]["made_with"] == expected["protocol"]
    assert found["protocol"]["data"]["class_names"] == list(seed_source(load_recipe(recipe)).class_names)


def test_seeds_are_cut_from_its_maps(command, program, run, results, tmp_path):
    words = ("seeds", "--maps", results.directory, "--out", tmp_path / "seeds")
    if (results.directory / "maps").is_dir():
        said, ids = command(*words), ids_of(run)
        assert re.search(rf"^{len(ids)} seed masks of \w+, at 0.3, are in", said, re.MULTILINE)
        assert {path.stem for path in (tmp_path / "seeds").glob("*.png")} == set(ids)
    else:
        assert_one_line_error(program("lpcam_jax.__main__", *words), "holds masks; name a folder of maps")


def test_masks_become_regions_of_coco(command, kind, results, tmp_path):
    said = command("export", "--format", "coco", "--masks", results.directory, "--out", tmp_path / "instances.json")
    document = strictly_parsed(tmp_path / "instances.json")
    assert len(document["images"]) == TINY[kind].pictures
    assert f"{TINY[kind].pictures} pictures with {len(document['annotations'])} regions" in said


def test_refine_finds_the_pictures_of_any_run(command, kind, tiny_runs, run, mapped, tmp_path):
    out = tmp_path / "out"
    words = ("--maps", mapped.directory, "--out", out, "--refine", "none", "--limit", 2)
    assert f"2 pictures are in {out}" in command("refine", "--ckpt", run.directory, *words)
    assert {path.stem for path in (out / "masks").iterdir()} == set(ids_of(run)[:2])
