"""What a chain will take: from progress bars, and from a whole trial."""

import json
import re
import sys

import pytest
from conftest import REPOSITORY

from lpcam_jax.chain.plan import plan
from lpcam_jax.chain.recipe import load_chain
from lpcam_jax.chain.trial import PICTURES, Bar, Watched, estimates, saved_estimates, small, watch

# Bars of a second or two, one of which waits before its first picture, as if it compiled.
BARS = """
import time
from tqdm import tqdm
print("not a bar: 3/4")
for _ in tqdm(range(10), "maps: of run", unit="img", mininterval=0):
    time.sleep(0.05)
with tqdm(total=32, desc="training", unit="pair", mininterval=0) as bar:
    time.sleep(1)
    for step in range(4):
        bar.update(8)
        bar.set_postfix(loss=0.5)
        time.sleep(0.2)
for _ in tqdm(range(3), "maps: of run", unit="img", mininterval=0):
    time.sleep(0.3)
"""


def test_bars_are_read_as_tqdm_writes_them(capfd):
    seen = watch([sys.executable, "-c", BARS])
    assert seen.code == 0
    assert [bar[:3] for bar in seen.bars] == [
        ("maps: of run", "img", 10),
        ("training", "pair", 32),
        ("maps: of run", "img", 3),
    ]
    first, training, second = (bar.seconds for bar in seen.bars)
    # At least what was slept; a busy machine takes longer.
    assert first >= 0.04
    assert second >= 0.25
    assert training >= 0.2 / 8 - 1e-3
    assert training * 32 < seen.seconds - 1  # without the second before the first step
    assert seen.memory > 5e6
    assert "training" in capfd.readouterr().err


def test_pictures_and_steps_are_scaled_and_the_rest_is_not(chain, tmp_path):
    """24 scenes, of which two are held out: six steps of eight, 24 pictures to map."""
    steps = plan(load_chain(str(chain)).only(["classifier"]), [], tmp_path)
    bars = (Bar("training", "img", 40, 0.1), Bar("features", "img", PICTURES, 0.5), Bar("clustering", "class", 12, 1))
    train = Watched(0, 40, 10**9, bars)
    apply = Watched(0, 9, 2 * 10**9, (Bar("heat maps", "img", PICTURES, 0.25),))
    found = estimates({"classifier/train": train, "classifier/apply": apply}, steps)
    rest = 40 - 4 - 8 - 12
    assert found["classifier/train"].seconds == pytest.approx(rest + 6 * 8 * 0.1 + 24 * 0.5 + 12)
    assert found["classifier/apply"].seconds == pytest.approx(9 - 4 + 24 * 0.25)
    assert str(found["classifier/apply"]) == "about 0:00:11, 2.0 GB of memory"


def test_a_trial_is_of_few_pictures_and_few_steps(chain, tmp_path):
    file = REPOSITORY / "configs" / "folder_chain.py"
    whole = load_chain(str(file)).chosen()
    commands = {step.key: " ".join(step.words) for step in plan(whole, small(plan(whole, [], tmp_path)), tmp_path)}
    assert all("--limit 16" in command for command in commands.values())
    assert "--training.epochs 1 --training.least-steps 5" in commands["classifier/train"]
    assert "--training.steps 5" in commands["network/train"]


@pytest.mark.rest
@pytest.mark.minutes
def test_a_trial_says_what_the_chain_will_take(program, chain, tmp_path):
    words = ("chain", chain, "--workdir", tmp_path / "W", "--only", "classifier")
    tried = program("lpcam_jax.__main__", *words, "--trial")
    assert tried.code == 0, tried.err
    assert sorted(path.name for path in (tmp_path / "W").iterdir() if path.suffix != ".lock") == ["trial", "trial.json"]
    shown = program("lpcam_jax.__main__", *words, "--dry-run").out
    for key in ("classifier/train", "classifier/apply"):
        line = rf"{key}  to do, about \d:\d\d:\d\d, \d\.\d GB of memory"
        assert re.search(line, shown)
        assert re.search(line, tried.out)
    assert re.search(r"in all +about \d:\d\d:\d\d", shown)
    metrics = json.loads((tmp_path / "W" / "trial" / "classifier" / "results" / "metrics.json").read_text())
    assert metrics["pictures"] == PICTURES
    assert {*saved_estimates(tmp_path / "W")} == {"classifier/train", "classifier/apply"}
