"""The words of a command line become values of a dataclass."""

from dataclasses import dataclass
from typing import Literal

import pytest

from lpcam_jax.config.command_line import parse_flags


@dataclass(frozen=True)
class Flags:
    """Of each kind of value that may be none."""

    longest: int | None = 640
    background: float | None = None
    refine: Literal["crf", "none"] = "crf"
    name: str = ""


def parsed(*words: str) -> Flags:
    return parse_flags(Flags, words, command="refine", description="")


@pytest.mark.parametrize("word", ["none", "None"])
def test_no_value_is_none_in_lower_case_or_as_python_has_it(word):
    assert parsed("--longest", word) == Flags(longest=None)
    assert parsed("--background", word) == Flags()
    assert parsed("--name", word) == Flags(name=word)  # a word where words are wanted


def test_numbers_and_choices_stay_what_they_are():
    assert parsed("--longest", "7", "--background", "0.5", "--refine", "none") == Flags(7, 0.5, "none")


def test_other_words_are_refused(capsys):
    with pytest.raises(SystemExit) as end:
        parsed("--longest", "nothing")
    assert end.value.code == 2
    assert "nothing" in capsys.readouterr().err


def test_help_says_none_as_it_is_given(capsys):
    with pytest.raises(SystemExit):
        parsed("--help")
    shown = capsys.readouterr().out
    assert "--background none|FLOAT" in shown
    assert "(default: none)" in shown
    assert "None" not in shown


@pytest.mark.parametrize(
    ("command", "words", "shown"),
    [
        ("train.py", ["shapes", "--no-such-flag", "1"], "train.py shapes --help"),
        ("lpcam_jax.__main__", ["export", "--format", "coco", "--no-such-flag", "1"], "export --format coco --help"),
    ],
)
def test_a_flag_that_there_is_not_is_told_the_help_that_has_all_of_them(program, command, words, shown):
    finished = program(command, *words)
    assert finished.code == 2
    assert finished.err.rstrip().splitlines()[-1].endswith(f" {shown}")
