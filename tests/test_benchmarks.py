"""Benchmarks: contestants take turns and answer alike, what got slower is noticed, the report says what happened."""

import copy
import itertools
import json
import math
import re
import time

import pytest

from benchmarks import __main__ as program
from benchmarks import machine, regression, report
from benchmarks.contest import REPOSITORY, Contest, Entry, Goal, hold
from benchmarks.contestant import Ready
from benchmarks.stages import SHORT_STAGES, STAGES, contests

pytestmark = pytest.mark.rest

HERE = "tests.test_benchmarks"


def sleeper(milliseconds: float, diary: str = "", answer: float = 1.0, prints: bool = False) -> Ready:
    """A contestant that sleeps, and notes when it began and ended."""

    def run():
        begun = time.monotonic()
        time.sleep(milliseconds / 1000)
        if prints:
            print("some library has something to say")
        if diary:
            with open(diary, "a") as file:
                file.write(f"{milliseconds} {begun} {time.monotonic()}\n")

    return Ready(run, lambda _: {"value": answer, "iterations": 4}, {"bytes": 7.0})


def stumbling() -> Ready:
    raise SystemExit("no such library here")


def fast_and_slow(**options) -> Contest:
    """60 and 120 ms or more: long enough that a turn is one run."""
    return Contest(
        "kernel",
        "sleeping",
        (
            Entry("ours", f"{HERE}:sleeper", {"milliseconds": 60, **options}),
            Entry("twice as long", f"{HERE}:sleeper", {"milliseconds": 120, **options}, Goal("≥ 0.01", least=0.01)),
        ),
        turns=3,
    )


@pytest.fixture(scope="module")
def slept() -> dict:
    return hold(fast_and_slow(prints=True), say=lambda _: None)


def test_ratio_is_of_medians_and_the_goal_is_checked(slept):
    ours, other = slept["rows"]
    assert ours["ratio"] == 1
    assert other["ratio"] == pytest.approx(other["median"] / ours["median"])
    assert ours["median"] >= 0.06
    assert other["median"] >= 0.12  # a sleep may be longer on a busy machine, never shorter
    assert other["met"]
    assert other["low"] <= other["median"] <= other["high"]
    assert slept["facts"] == [{"name": "bytes", "value": 7.0}]
    assert json.loads(json.dumps(slept)) == slept


def test_only_one_works_at_a_time_and_they_take_turns(tmp_path):
    diary = tmp_path / "diary"
    hold(fast_and_slow(diary=str(diary)), say=lambda _: None)
    rows = [list(map(float, line.split())) for line in diary.read_text().splitlines()]
    assert [row[0] for row in rows] == [60, 60, 120, 120] + [60, 120] * 3, "each warms up twice, then in turn"
    for before, after in itertools.pairwise(rows):
        assert before[2] <= after[1]


def test_who_fails_disagrees_or_is_not_installed_has_a_row_that_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr("benchmarks.contest.PEERS_PYTHON", tmp_path / "none")
    quick = {"milliseconds": 1}
    result = hold(
        Contest(
            "kernel",
            "troubles",
            (
                Entry("ours", f"{HERE}:sleeper", quick),
                Entry("close", f"{HERE}:sleeper", {**quick, "answer": 1 + 1e-6}),
                Entry("another answer", f"{HERE}:sleeper", {**quick, "answer": 1.1}),
                Entry("no answer", f"{HERE}:sleeper", {**quick, "answer": math.nan}),
                Entry("broken", f"{HERE}:stumbling"),
                Entry("absent", "benchmarks.peers.kernel:loop", {"blocks": 1}),
            ),
            turns=1,
            per="iterations",
        ),
        say=lambda _: None,
    )
    ours, close, another, unknown, broken, absent = result["rows"]
    assert "error" not in ours | close
    assert ours["count"] == 4
    assert another["error"] == "disagrees: value differs by 1.0e-01 of its largest value, 1e-05 allowed"
    assert unknown["error"].startswith("disagrees: value")
    assert broken["error"] == "failed: no such library here"
    assert absent["error"] == "not installed: make .venv-bench/ready"
    assert [line.partition(" ")[2] for line in regression.errors(result)] == [
        f"another answer {another['error']}",
        f"no answer {unknown['error']}",
    ]
    text = "\n".join(report.table(result))
    for row in (another, unknown, broken, absent):
        assert row["error"] in text


def with_ratio(result: dict, ratio: float, **changes) -> dict:
    """A result of this ratio, timed without any spread."""
    changed = copy.deepcopy(result) | changes
    changed["rows"] = [row | {"low": row["median"], "high": row["median"]} for row in changed["rows"]]
    changed["rows"][1]["ratio"] = ratio
    return changed


@pytest.mark.parametrize(
    ("better", "before", "now", "is_slower"),
    [
        ("up", 2.0, 1.7, False),
        ("up", 2.0, 1.6, True),
        ("up", 2.0, 9.0, False),
        ("down", 2.0, 2.3, False),
        ("down", 2.0, 2.5, True),
        ("", 2.0, 0.1, False),
    ],
)
def test_a_ratio_that_got_a_fifth_worse_is_noticed(slept, better, before, now, is_slower):
    results = with_ratio(slept, now, better=better), with_ratio(slept, before, better=better)
    lines = regression.slower(*results)
    assert len(lines) == is_slower
    assert regression.slower(*results, allowed=30) == []
    if is_slower:
        assert lines[0].startswith("sleeping: twice as long was 2 times ours, is now")


def test_it_is_measured_again_before_it_is_believed(slept, monkeypatch):
    monkeypatch.setattr(program, "progress", lambda text: None)
    contest = fast_and_slow()
    for measurements, found in (([1.0, 2.0], 0), ([1.0, 1.0], 1), ([2.0], 0)):
        left = [with_ratio(slept, ratio) for ratio in measurements]
        monkeypatch.setattr(program, "hold", lambda contest, say, left=left: left.pop(0))
        result, problems = program.measured(contest, with_ratio(slept, 2.0))
        assert len(problems) == found
        assert not left
        assert result["rows"][1]["ratio"] == measurements[-1]


def test_another_machine_is_not_compared(slept):
    here = machine.describe()
    assert here["cores"] >= 1
    committed = {"machine": here, "contests": [slept]}
    assert program.comparable(committed, here) == {"sleeping": slept}
    assert program.comparable(committed, here | {"cpu": "another"}) == {}
    assert program.comparable(committed, here | {"cores": 1000}) == {}
    assert program.comparable(None, here) == {}


def test_the_report_replaces_what_is_between_its_markers(slept, tmp_path):
    file = tmp_path / "RESULTS.md"
    file.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    results = {
        "machine": machine.describe(),
        "date": "2026-01-02",
        "command": "python -m benchmarks",
        "contests": [slept],
    }
    for _ in range(2):
        report.put_into(file, report.markdown(results))
    text = file.read_text()
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "old" not in text
    assert text.count("**sleeping**") == 1
    assert re.search(r"\| twice as long \| [\d.,]+ m?s \(", text)
    assert "≥ 0.01: met" in text
    with pytest.raises(ValueError, match="needs the lines"):
        report.put_into(REPOSITORY / "LICENSE", "text")


def test_every_stage_has_contests_with_a_title_of_their_own():
    everything = contests(STAGES)
    titles = [contest.title for contest in everything]
    assert len(set(titles)) == len(titles)
    assert {contest.stage for contest in everything} == set(STAGES)
    assert {contest.title for contest in contests(SHORT_STAGES, short=True)} < set(titles)
    for contest in everything:
        for entry in contest.entries:
            module, _, function = entry.start.partition(":")
            source = (REPOSITORY / f"{module.replace('.', '/')}.py").read_text()
            assert f"def {function}(" in source


def test_the_committed_results_are_of_contests_that_exist():
    committed = json.loads((REPOSITORY / "benchmarks" / "results.json").read_text())
    for kind, made in committed.items():
        stages, short = (SHORT_STAGES, True) if kind == "short" else (STAGES, False)
        titles = {contest.title for contest in contests(stages, short=short)}
        assert {result["title"] for result in made["contests"]} <= titles
