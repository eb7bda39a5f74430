"""A checkpoint with damage in any of its files is refused; it names the file, and the checkpoint to use instead."""

import json
import re
import shutil

import numpy as np
import pytest
from test_commands import assert_one_line_error

from lpcam_jax.machine.errors import UserError
from lpcam_jax.systems.prototyping.stored_prototypes import load_prototypes
from lpcam_jax.training.checksums import NAME, find_damage, write_checksums
from lpcam_jax.training.run import Run


@pytest.fixture
def folder(trained, tmp_path):
    """A copy of the newest checkpoint, to be damaged."""
    return shutil.copytree(trained / "checkpoints" / "6", tmp_path / "6")


def flip_one_bit(content: bytes, rng: np.random.Generator) -> bytes:
    changed = bytearray(content)
    changed[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
    return bytes(changed)


DAMAGES = {
    "one bit flipped": flip_one_bit,
    "one byte short": lambda content, rng: content[:-1],
    "empty": lambda content, rng: b"",
    "garbage appended": lambda content, rng: content + rng.bytes(3),
    "zeros": lambda content, rng: bytes(len(content)),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_in_any_one_file_is_found_and_the_file_is_named(folder, damage):
    assert find_damage(folder) is None
    rng = np.random.default_rng(0)
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 8
    for path in files:
        content = path.read_bytes()
        path.write_bytes(DAMAGES[damage](content, rng))
        found = find_damage(folder)
        assert found is not None, path
        assert path.relative_to(folder).as_posix() in found
        assert "\n" not in found
        path.write_bytes(content)
    assert find_damage(folder) is None


def test_any_file_that_is_missing_is_named(folder):
    for path in [path for path in folder.rglob("*") if path.is_file() and path.name != NAME]:
        moved = path.rename(folder.parent / "moved")
        assert find_damage(folder) == f"{path.relative_to(folder).as_posix()}, which {NAME} lists, is missing"
        moved.rename(path)


def test_every_checkpoint_has_them_and_one_without_is_not_checked(trained, folder):
    for step in Run.open(trained).steps():
        of_step = trained / "checkpoints" / str(step)
        names = {path.relative_to(of_step).as_posix() for path in of_step.rglob("*") if path.is_file()}
        assert json.loads((of_step / NAME).read_text()).keys() == names - {NAME}
    (folder / NAME).unlink()
    (folder / "default" / "_METADATA").write_bytes(b"")
    assert find_damage(folder) is None


def test_files_that_others_add_do_not_matter(folder):
    (folder / ".DS_Store").write_bytes(b"a file manager was here")
    assert find_damage(folder) is None


@pytest.mark.parametrize("text", ["", "[]", '"text"', "{", "[" * 100_000, '{"../../etc/passwd": 1}', "{'a': NaN}"])
def test_checksums_that_are_none(folder, text):
    (folder / NAME).write_text(text)
    assert find_damage(folder) is not None


def test_the_checksums_are_those_of_sha256sum(tmp_path):
    (tmp_path / "deeper").mkdir()
    (tmp_path / "deeper" / "a.txt").write_bytes(b"abc")
    write_checksums(tmp_path)
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-4, B.1
    assert json.loads((tmp_path / NAME).read_text()) == {"deeper/a.txt": expected}


def test_one_bit_of_the_prototypes_is_found_or_does_not_matter(trained, tmp_path):
    """The archive has checksums of its own, but not of every byte of its headers."""
    run = Run.open(shutil.copytree(trained, tmp_path / "run"))
    file, whole = run.directory / "prototypes.npz", load_prototypes(run)
    content, rng, refused = file.read_bytes(), np.random.default_rng(0), 0
    for _ in range(200):
        file.write_bytes(flip_one_bit(content, rng))
        try:
            read = load_prototypes(run)
        except UserError:
            refused += 1
            continue
        for found, expected in zip(read, whole, strict=True):
            np.testing.assert_array_equal(found, expected, strict=True)
    assert refused > 100


@pytest.mark.rest
def test_a_command_says_which_checkpoint_to_use_instead(program, recipe, trained, tmp_path):
    run = shutil.copytree(trained, tmp_path / "run")
    newest, other = run / "checkpoints" / "6", run / "checkpoints" / "4"
    for folder in (newest, other):
        file = folder / "default" / "_sharding"
        file.write_bytes(file.read_bytes() + b"\n")
    finding = "default/_sharding does not match checksums.json"
    remedy = f"delete the folder {newest} to fall back to the one of step 4, or train again."
    for words in (("infer.py", "--ckpt", run, "--out", tmp_path / "out"), ("train.py", recipe, "--workdir", run)):
        message = f"checkpoint {newest} is damaged ({finding}); {remedy}"
        assert_one_line_error(program(*words), re.escape(message))
    shutil.rmtree(newest)
    message = f"checkpoint {other} is damaged ({finding}); delete the folder {other} and train again."
    assert_one_line_error(program("train.py", recipe, "--workdir", run), re.escape(message))
    shutil.rmtree(other)
    again = program("train.py", recipe, "--workdir", run)
    assert again.code == 0, again.err
    assert (run / "prototypes.npz").read_bytes() == (trained / "prototypes.npz").read_bytes()
