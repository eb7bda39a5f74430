"""Published archives: found, checked, read in place."""

import gzip
import hashlib
import re
import tarfile
import zipfile

import pytest
import tiny_benchmarks as tiny

from lpcam_jax.data import archives
from lpcam_jax.data.archives import Published, find_files
from lpcam_jax.machine.errors import UserError

FILES = {"list.txt": b"one", "pictures/a.jpg": b"a", "pictures/deep/b.jpg": b"b", "masks/a.png": b"mask"}


def packed(folder, kind, *, prefix="set/2012/"):
    path = folder / f"archive{kind}"
    if kind == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in FILES.items():
                archive.writestr(prefix + name, content)
    else:
        tiny.pack_tar(FILES, path, prefix=prefix)
    return path


def found(root, **options):
    return find_files(root, "pictures", **{"folders": ("", "set/2012"), "archives": ("archive*",)} | options)


@pytest.mark.parametrize("prefix", ["", "set/", "./set/2012/"])
@pytest.mark.parametrize("kind", [".tar", ".zip", "folder"])
def test_names_are_relative_to_the_folder_of_the_anchor(tmp_path, kind, prefix):
    if kind == "folder":
        tiny.unpack(FILES, tmp_path / prefix)
        files = found(tmp_path, folders=("", "set", "set/2012"))
    else:
        packed(tmp_path, kind, prefix=prefix)
        files = found(tmp_path)
    assert files.read("list.txt") == b"one"
    assert files.read("pictures/deep/b.jpg") == b"b"
    assert files.names("pictures") == ["a.jpg"]
    assert files.names("nowhere") == []
    assert "masks/a.png" in files
    assert "masks" not in files
    assert "masks/b.png" not in files
    with pytest.raises(UserError, match=r"masks/b.png: no such file; download the data set again"):
        files.read("masks/b.png")


def test_a_compressed_tar_gives_all_but_its_pictures(tmp_path):
    packed(tmp_path, ".tgz")
    files = find_files(tmp_path, "masks", folders=(), archives=("*.tgz",))
    assert files.read("masks/a.png") == b"mask"
    assert files.read("list.txt") == b"one"
    assert "pictures/a.jpg" not in files


def test_nothing_is_there(tmp_path):
    assert found(tmp_path) is None
    with tarfile.open(tmp_path / "archive.tar", "w"):
        pass
    assert found(tmp_path) is None


@pytest.mark.parametrize("kind", [".tar", ".zip", ".tgz"])
@pytest.mark.parametrize("keep", [0.0, 0.05, 0.2, 0.35])
def test_an_archive_that_ends_early_is_named(tmp_path, kind, keep):
    """Either it cannot be opened, or what is cut off is not there or says so: never is a part taken for the whole."""
    path = packed(tmp_path, kind)
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])
    files, refusal = None, ""
    try:
        files = find_files(tmp_path, "masks", folders=(), archives=("archive*",))
    except UserError as error:
        refusal = str(error)
    if refusal:
        assert re.search(rf"archive\{kind}: not a readable archive .*download it again", refusal)
        return
    assert kind != ".zip"  # which has its table of contents at its end
    if files is not None:
        with pytest.raises(UserError, match=r"masks/a.png: cannot be read|masks/a.png: no such file"):
            files.read("masks/a.png")


@pytest.mark.parametrize("kind", [".tar", ".tgz"])
@pytest.mark.parametrize("damage", ["shifted", "a bit", "lost", "all after it is lost", "cut there", "another archive"])
def test_a_tar_of_which_a_header_is_damaged_is_named(tmp_path, damage, kind):
    """What comes after it cannot be found: it is no shorter archive, of fewer pictures."""
    path = packed(tmp_path, kind)
    opened = gzip.open if kind == ".tgz" else open
    with opened(path, "rb") as file:
        content = file.read()
    header = content.index(b"set/2012/masks/a.png")
    before, after = content[:header], content[header:]
    damaged = {
        "shifted": before + bytes(16) + after,
        "a bit": before + bytes([after[0] ^ 1]) + after[1:],
        "lost": before + bytes(512) + after[512:],
        "all after it is lost": before + bytes(1 << 22),  # a download that reserved its place on the disk first
        "cut there": before,
        "another archive": content + content,
    }[damage]
    with opened(path, "wb") as file:
        file.write(damaged)
    with pytest.raises(UserError, match=rf"archive\{kind}: not a readable archive .*download it again"):
        find_files(tmp_path, "masks", folders=(), archives=("archive*",))


def test_the_checksum_of_a_compressed_tar_is_compared(tmp_path):
    path = packed(tmp_path, ".tgz")
    content = bytearray(path.read_bytes())
    content[-8] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"archive.tgz: not a readable archive \(CRC check failed .*download it again"):
        find_files(tmp_path, "masks", folders=(), archives=("archive*",))


@pytest.mark.parametrize("kind", [".tar", ".tgz"])
@pytest.mark.parametrize("end", [512, 1024, 10240, 1 << 20])
def test_a_tar_may_be_filled_up_after_its_end(tmp_path, end, kind):
    path = packed(tmp_path, kind)
    opened = gzip.open if kind == ".tgz" else open
    with opened(path, "rb") as file:
        content = file.read().rstrip(b"\0")
    content += bytes(-len(content) % 512)
    with opened(path, "wb") as file:
        file.write(content + bytes(end))
    assert find_files(tmp_path, "masks", folders=(), archives=("archive*",)).names("masks") == ["a.png"]


def test_links_in_an_archive_are_no_files(tmp_path):
    path = tmp_path / "archive.tar"
    with tarfile.open(path, "w") as archive:
        link = tarfile.TarInfo("set/pictures/a.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
        archive.addfile(tarfile.TarInfo("set/pictures/b.jpg"))
    assert found(tmp_path).names("pictures") == ["b.jpg"]


def test_the_published_content_is_checked_once(tmp_path, monkeypatch, capsys):
    path = packed(tmp_path, ".tar")
    content = path.read_bytes()
    entry = Published(len(content), "sha256", hashlib.sha256(content).hexdigest())
    monkeypatch.setitem(archives.PUBLISHED, "archive.tar", entry)
    assert found(tmp_path) is not None
    monkeypatch.setattr(archives, "_digest", lambda *_: pytest.fail("checked again"))
    assert found(tmp_path) is not None
    assert capsys.readouterr().out == ""


def test_the_size_of_the_published_with_another_content_is_refused(tmp_path, monkeypatch):
    path = packed(tmp_path, ".tar")
    monkeypatch.setitem(archives.PUBLISHED, "archive.tar", Published(path.stat().st_size, "md5", "0" * 32))
    with pytest.raises(UserError, match=r"archive.tar: its md5 is [0-9a-f]{32}, the published one 0+; download"):
        found(tmp_path)


def test_another_size_than_the_published_is_noted_and_explains_a_damage(tmp_path, monkeypatch, capsys):
    path = packed(tmp_path, ".zip")
    monkeypatch.setitem(archives.PUBLISHED, "archive.zip", Published(12345, "md5", "0" * 32))
    assert found(tmp_path) is not None
    assert "bytes, the published one 12,345" in capsys.readouterr().out
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match=r"not a readable archive .*; it has 100 bytes, the published one 12,345"):
        found(tmp_path)
