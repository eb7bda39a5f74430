"""What a chain will take: from progress bars, and from a whole trial."""

import json
import re
import sys

import pytest
from conftest import HANGS, REPOSITORY
from test_commands import assert_one_line_error

from lpcam_jax.chain import trial
from lpcam_jax.chain.flags import group
from lpcam_jax.chain.plan import plan
from lpcam_jax.chain.recipe import load_chain
from lpcam_jax.chain.trial import PICTURES, Estimate, estimates, save_estimates, saved_estimates, small
from lpcam_jax.chain.watched import Bar, ProgressBars, Watched, watch

BARS = """
from tqdm import tqdm
print("not a bar: 3/4")
for _ in tqdm(range(10), "maps: of run", unit="img"):
    pass
with tqdm(total=32, desc="training", unit="pair") as bar:
    for step in range(4):
        bar.update(8)
        bar.set_postfix(loss=0.5)
        if step == 1:
            for _ in tqdm(range(2), "validation", unit="img"):
                pass
for _ in tqdm(range(3), "maps: of run", unit="img"):
    pass
"""


def test_bars_are_read_as_tqdm_writes_them(capfd):
    seen = watch([sys.executable, "-c", BARS])
    assert seen.code == 0
    assert [bar[:3] for bar in seen.bars] == [
        ("maps: of run", "img", 10),
        ("training", "pair", 32),
        ("validation", "img", 2),
        ("maps: of run", "img", 3),
    ]
    assert all(0 <= bar.seconds < seen.seconds for bar in seen.bars)
    assert seen.memory > 5e6
    assert "training" in capfd.readouterr().err


def test_compiling_and_a_bar_within_another_are_not_of_its_time():
    """Four steps of two pictures, a second each; one before the first, two of validation, one at the end."""
    bars = ProgressBars()

    def see(now: float, what: str, done: int, total: int, unit: str = "img") -> None:
        bars.read(f"\r{what}: {100 * done // total:3d}%|###  | {done}/{total} [00:0{now:.0f}<00:01, 2.00{unit}/s]", now)

    see(0, "training", 0, 8)
    for now, done in ((1, 2), (2, 4)):
        see(now, "training", done, 8)
    for now, done in ((2, 0), (3, 1), (4, 2)):
        see(now, "validation", done, 2)
    for now, done in ((5, 6), (6, 8), (7, 8)):  # the last says nothing new
        see(now, "training", done, 8)
    assert bars.ended() == (Bar("training", "img", 8, 0.5), Bar("validation", "img", 2, 1.0))


def test_of_a_bar_with_one_update_compiling_counts():
    bars = ProgressBars()
    for now, done in ((3.0, 0), (5.0, 4)):
        bars.read(f"\rmaps:   0%|  | {done}/4 [00:00<?, ?img/s]", now)
    assert bars.ended() == (Bar("maps", "img", 4, 0.5),)


IDLE = Watched(0, 0, 10**9, ())


def trials(chain, folder, *words, only=("classifier",)):
    """The steps of a trial, and of the whole."""
    made, flags = load_chain(str(chain)).chosen().only(only), group(words)
    steps = plan(made, flags, folder)
    return plan(made, [*flags, *small(steps)], folder / "trial"), steps


def test_pictures_and_steps_are_scaled_and_the_rest_is_not(chain, tmp_path):
    """24 scenes, of which two are held out, six steps of eight; tried on 16, of which two are held out, five steps."""
    bars = (Bar("classifier", "img", 40, 0.1), Bar("features", "img", PICTURES, 0.5), Bar("clustering", "class", 12, 1))
    train = Watched(0, 40, 10**9, bars)
    apply = Watched(0, 9, 2 * 10**9, (Bar("heat maps", "img", PICTURES, 0.25),))
    found = estimates({"classifier/train": train, "classifier/apply": apply}, *trials(chain, tmp_path))
    rest = 40 - 4 - 8 - 12
    assert found["classifier/train"].seconds == pytest.approx(rest + 6 * 8 * 0.1 + 24 * 0.5 + 12)
    assert found["classifier/apply"].seconds == pytest.approx(9 - 4 + 24 * 0.25)
    assert str(found["classifier/apply"]) == "about 0:00:11, 2.0 GB of memory"


def test_every_step_is_scaled_by_its_own_stage(chain, tmp_path):
    """IRN learns from the classifier, and trains two epochs of three steps: its steps are not the classifier's."""
    words = ("--irn.training.batch-size", "2", "--classifier.split", "all[:20]")
    tried, steps = trials(chain, tmp_path, *words, only=("irn",))
    assert [step.key for step in steps if step.action == "score"] == ["classifier/score"]
    watched = {step.key: Watched(0, 9, 10**9, (Bar("scoring", "img", PICTURES, 0.25),)) for step in steps}
    irn = Bar("irn", "img", 32, 0.5)  # two epochs of eight steps, of the batch size that was asked for
    watched["irn/train"] = Watched(0, 16, 10**9, (irn,))
    found = estimates(watched, tried, steps)
    assert found["irn/train"].seconds == pytest.approx(2 * 24 * 0.5)
    assert found["classifier/apply"].seconds == pytest.approx(9 - 4 + 20 * 0.25)
    assert found["classifier/score"].seconds == pytest.approx(9 - 4 + 24 * 0.25)


def test_pairs_are_counted_as_pairs(tiny_runs, tmp_path):
    """EDAM's steps, of pairs, are those that it trains."""
    file = tmp_path / "chain.py"
    stage = f'Stage("edam", {str(tiny_runs.recipe("edam"))!r})'
    file.write_text(f"from lpcam_jax.chain.recipe import Chain, Stage\ndef get_chain(): return Chain(({stage},))\n")
    steps = plan(load_chain(str(file)).chosen(), [], tmp_path / "W")
    log = (tiny_runs.run("edam").directory / "metrics.jsonl").read_text().splitlines()
    batch = steps[0].config.training.batch_size
    assert trial._amounts(steps[0], steps).trained == batch * max(json.loads(line)["step"] for line in log)


def test_a_trial_is_not_of_more_pictures_than_the_whole(chain, tmp_path):
    tried, _ = trials(chain, tmp_path, "--limit", "5")
    assert all(step.words[-1] == "5" or "--limit 5" in " ".join(step.words) for step in tried)
    assert not any("--limit 16" in " ".join(step.words) for step in tried)


def test_no_limit_of_the_whole_is_16_of_a_trial(chain, tmp_path):
    tried, steps = trials(chain, tmp_path, "--limit", "none")
    assert all("--limit 16" in " ".join(step.words) for step in tried)
    amounts = {key: one.seconds for key, one in estimates({step.key: IDLE for step in steps}, tried, steps).items()}
    assert amounts == {step.key: 0 for step in steps}


def test_estimates_are_of_the_settings_that_were_tried(chain, tmp_path):
    _, steps = trials(chain, tmp_path)
    save_estimates(tmp_path, {step.key: Estimate(3, 10**9) for step in steps}, steps)
    assert {*saved_estimates(tmp_path, steps)} == {step.key for step in steps}
    _, others = trials(chain, tmp_path, "--training.epochs", "9")
    assert {*saved_estimates(tmp_path, others)} == {"classifier/apply"}
    values = json.loads((tmp_path / "trial.json").read_text())
    for damage in ({"seconds": "x"}, {"seconds": None}, {"memory": []}, {"seconds": -1}, {"command": 3}):
        damaged = {key: {**value, **damage} for key, value in values.items()}
        (tmp_path / "trial.json").write_text(json.dumps(damaged))
        assert saved_estimates(tmp_path, steps) == {}
    (tmp_path / "trial.json").write_text("[]")
    assert saved_estimates(tmp_path, steps) == {}


def test_a_trial_is_of_few_pictures_and_few_steps(chain, tmp_path):
    file = REPOSITORY / "configs" / "folder_chain.py"
    whole = load_chain(str(file)).chosen()
    commands = {step.key: " ".join(step.words) for step in plan(whole, small(plan(whole, [], tmp_path)), tmp_path)}
    assert all("--limit 16" in command for command in commands.values())
    assert "--training.epochs 1 --training.least-steps 5" in commands["classifier/train"]
    assert "--training.steps 5" in commands["network/train"]


@pytest.mark.rest
@pytest.mark.minutes
def test_a_trial_says_what_the_chain_will_take(start_program, program, chain, tmp_path):
    words = ("chain", chain, "--workdir", tmp_path / "W", "--only", "classifier")
    process = start_program("-m", "lpcam_jax", *words, "--trial")
    out, err = process.communicate(timeout=HANGS)
    assert process.returncode == 0, err
    assert sorted(path.name for path in (tmp_path / "W").iterdir() if path.suffix != ".lock") == ["trial", "trial.json"]
    shown = program("lpcam_jax.__main__", *words, "--dry-run").out
    for key in ("classifier/train", "classifier/apply"):
        line = rf"{key}  to do, about \d:\d\d:\d\d, \d\.\d GB of memory"
        assert re.search(line, shown)
        assert re.search(line, out)
    assert re.search(r"in all +about \d:\d\d:\d\d", shown)
    metrics = json.loads((tmp_path / "W" / "trial" / "classifier" / "results" / "metrics.json").read_text())
    assert metrics["pictures"] == PICTURES
    # What is not a trial is not deleted for one.
    (tmp_path / "W" / "trial" / "this_is_a_trial.txt").unlink()
    assert_one_line_error(program("lpcam_jax.__main__", *words, "--trial"), ".*trial is no trial of chain; move it")
    assert (tmp_path / "W" / "trial" / "classifier" / "run").is_dir()
