"""JSON and arrays as files."""

import io
import json
import zipfile

import numpy as np
import pytest

from lpcam_jax.machine.files import read_arrays, write_arrays, write_json


def test_json_is_readable_utf_8(tmp_path):
    values = {"classes": ["猫", "dog"], "miou": [0.5, None], "empty": {}}
    write_json(tmp_path / "deeper" / "a.json", values)
    assert (tmp_path / "deeper" / "a.json").read_bytes() == json.dumps(values, indent=2, ensure_ascii=False).encode()


@pytest.mark.parametrize("name", ["caf\udce9.jpg", "猫\udc80", "\\\udce9", "\\udce9", '"\udcff"\n'])
def test_names_that_are_not_utf_8_come_back_from_json(tmp_path, name):
    write_json(tmp_path / "a.json", {name: [name]})
    assert json.loads((tmp_path / "a.json").read_bytes().decode()) == {name: [name]}


def test_arrays_come_back_and_are_those_of_numpy_byte_for_byte(tmp_path):
    arrays = {
        "maps": np.arange(6, dtype=np.float16).reshape(2, 3),
        "names": np.array(["cat", "猫"]),
        "path": np.int32(7),
    }
    write_arrays(tmp_path / "a.npz", **arrays)
    expected = io.BytesIO()
    np.savez(expected, **arrays)
    assert (tmp_path / "a.npz").read_bytes() == expected.getvalue()
    read = read_arrays(tmp_path / "a.npz")
    assert read.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(read[name], array, strict=True)


def test_what_is_no_array_in_the_archive_is_left_out(tmp_path):
    write_arrays(tmp_path / "a.npz", classes=np.arange(3))
    with zipfile.ZipFile(tmp_path / "a.npz", "a") as archive:
        archive.writestr("README.txt", "three classes")
    assert {name: array.tolist() for name, array in read_arrays(tmp_path / "a.npz").items()} == {"classes": [0, 1, 2]}
    with zipfile.ZipFile(tmp_path / "a.npz", "a") as archive:
        archive.writestr("more.npy", "no array")
    with pytest.raises(ValueError, match=r"more\.npy is no array"):
        read_arrays(tmp_path / "a.npz")


def test_python_objects_are_never_pickled(tmp_path):
    with pytest.raises(ValueError, match="allow_pickle=False"):
        write_arrays(tmp_path / "a.npz", objects=np.array([{}, "text"], dtype=object))
    assert not list(tmp_path.iterdir())
