"""What a prototype looks like: the nearest features, the patches around them, the files of a run."""

import shutil
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from PIL import Image

from lpcam_jax import cluster_classes, own_scores, select_prototypes
from lpcam_jax.data.records import Record
from lpcam_jax.machine.errors import UserError
from lpcam_jax.systems.lpcam.config import Clustering
from lpcam_jax.systems.prototyping.prototype_patches import (
    SIDE,
    Nearest,
    nearest_features,
    patch_box,
    read_patches,
    strip_file,
    write_patches,
)
from lpcam_jax.systems.prototyping.stored_prototypes import load_prototypes
from lpcam_jax.training.run import Run
from lpcam_jax.training.state import trained_state

GREEN, GREY = (0, 200, 0), (90, 90, 90)


def clustered(count=64, pictures=9, classes=2, k=3):
    rng = np.random.default_rng(0)
    points = rng.random((classes, count, 5), dtype=np.float32)
    weights = np.ones((classes, count), np.float32)
    weights[1, 40:] = 0
    points[1, 40:] = 0
    positions = np.stack([rng.integers(0, high, (classes, count)) for high in (pictures, 4, 7)], axis=-1)
    positions[1, 40:] = -1
    return points, weights, positions, cluster_classes(jax.random.key(0), points, weights, k=k)


def test_nearest_features_are_the_best_members_of_as_many_pictures():
    points, weights, positions, clusters = clustered()
    found = nearest_features(points, weights, positions, clusters, count=4)
    for n, k in np.ndindex(2, 3):
        centre = np.asarray(clusters.means)[n, k]
        best = {}
        for point, weight, position, cluster in zip(
            points[n], weights[n], positions[n], np.asarray(clusters.assignment)[n], strict=True
        ):
            if weight and cluster == k:
                cosine = point @ centre / np.linalg.norm(point) / np.linalg.norm(centre)
                best[position[0]] = max(best.get(position[0], (-1, ())), (cosine, tuple(position)))
        expected = sorted(best.values(), reverse=True)[:4]
        assert len(expected) >= 3
        assert [tuple(one) for one in found.positions[n, k] if one[0] >= 0] == [place for _, place in expected]
        np.testing.assert_allclose(found.cosines[n, k, : len(expected)], [c for c, _ in expected], rtol=1e-5)


def test_a_class_without_features_has_no_nearest_ones():
    points, weights, positions, _ = clustered()
    points[0], weights[0], positions[0] = 0, 0, -1
    clusters = cluster_classes(jax.random.key(0), points, weights, k=3)
    found = nearest_features(points, weights, positions, clusters)
    assert (found.positions[0] == -1).all()
    assert (found.positions[1, :, 0] >= 0).all()


@pytest.mark.parametrize(
    ("size", "row", "column", "box"),
    [
        ((375, 500), 10, 12, (152, 120, 248, 216)),  # around (168, 200)
        ((375, 500), 0, 0, (0, 0, 96, 96)),
        ((375, 500), 23, 31, (404, 279, 500, 375)),
        ((100, 200), 3, 6, (79, 31, 129, 81)),  # half of the shorter side, around (56, 104)
        ((1, 40), 0, 1, (24, 0, 25, 1)),
    ],
)
def test_a_patch_lies_around_its_feature_within_the_picture(size, row, column, box):
    assert patch_box(size, row, column, stride=16) == box


class Squares:
    """Grey pictures, each with one green cell; the last cannot be read."""

    class_names = ("../<b>", "b")
    ids = ("p/0", "p/1", "p/2")
    cells = ((4, 7), (12, 3), (0, 0))

    def __getitem__(self, index):
        if index == 2:
            raise UserError("p/2 cannot be read")
        image = np.full((320, 256, 3), GREY, np.uint8)
        row, column = self.cells[index]
        image[16 * row : 16 * row + 16, 16 * column : 16 * column + 16] = GREEN
        return Record(self.ids[index], image, None, None)


@pytest.fixture
def written(tmp_path):
    """Two classes with two clusters; one has features in all pictures, one is a context's, the others are empty."""
    centres = np.zeros((2, 2, 3), np.float32)
    centres[0, 1] = 1, 0, 0
    weights = np.float32([[3, 0], [0, 1], [0, 0]])
    prototypes = select_prototypes(centres, centres[::-1].copy(), weights)
    nothing = Nearest(np.full((2, 2, 8, 3), -1, np.int32), np.zeros((2, 2, 8), np.float32))
    nearest = [nothing._replace(positions=nothing.positions.copy()) for _ in range(2)]
    nearest[0].positions[0, 1, :3] = [(picture, *Squares.cells[picture]) for picture in (1, 2, 0)]
    nearest[1].positions[1, 1, 0] = (0, *Squares.cells[0])
    counts = np.zeros((2, 2, 2))
    counts[0, 0, 1], counts[1, 1, 1] = 30, 10
    write_patches(tmp_path, Clustering(), Squares(), prototypes, weights, counts, nearest, stride=16, longest=None)
    return SimpleNamespace(directory=tmp_path, prototypes=prototypes, weights=weights)


def test_a_strip_shows_each_patch_around_its_feature(written):
    with Image.open(strip_file(written.directory, 0, 1, context=False)) as image:
        strip = np.asarray(image).astype(int)
    assert strip.shape == (SIDE, 2 * SIDE, 3)  # the picture that cannot be read is left out
    for start in (0, SIDE):
        patch = strip[:, start : start + SIDE]
        assert np.abs(patch[44:52, 44:52] - GREEN).max() < 12  # the feature's cell is in the middle
        assert np.abs(patch[:30, :30] - GREY).max() < 12
        assert np.abs(patch[-30:, -30:] - GREY).max() < 12


def test_the_files_of_a_run_are_named_by_numbers(written):
    found = {path.relative_to(written.directory).as_posix() for path in written.directory.rglob("*") if path.is_file()}
    assert found == {"prototypes.json", "prototypes/0000_class_01.jpg", "prototypes/0001_context_01.jpg"}


def test_what_is_known_of_every_cluster(written):
    values = read_patches(written.directory, written.prototypes)
    assert (values["mu_f"], values["context"]) == (0.5, [-1, 0.5])  # of two classes
    first, second = values["classes"]
    assert (first["name"], second["name"]) == Squares.class_names
    empty, full = first["class"]
    assert (empty["kept"], empty["share"], empty["patches"]) == (False, 0, [])
    assert (full["kept"], full["share"]) == (True, 1)
    assert full["score"] == 1.0  # of two classes, compared with the best of its class, which is itself
    assert [patch["id"] for patch in full["patches"]] == ["p/1", "p/0"]
    assert full["patches"][0]["box"] == [8, 152, 104, 248]
    assert [one["patches"] for one in second["class"]] == [[], []]
    assert second["context"][1]["patches"][0]["id"] == "p/0"


def test_patches_of_other_prototypes_are_none(written):
    other = written.prototypes._replace(class_centres=2 * written.prototypes.class_centres)
    assert read_patches(written.directory, other) is None
    (written.directory / "prototypes.json").write_text("{")
    assert read_patches(written.directory, written.prototypes) is None
    (written.directory / "prototypes.json").unlink()
    assert read_patches(written.directory, written.prototypes) is None


def test_a_trained_run_has_patches_of_its_prototypes(trained):
    run = Run.open(trained)
    prototypes = load_prototypes(run)
    values = read_patches(trained, prototypes)
    assert [one["name"] for one in values["classes"]] == list(run.class_names)
    for kind, mask in (("class", prototypes.class_mask), ("context", prototypes.context_mask)):
        for n, one in enumerate(values["classes"]):
            assert [cluster["kept"] for cluster in one[kind]] == mask[n].tolist()
            assert sum(cluster["share"] for cluster in one[kind]) == pytest.approx(1)
            for k, cluster in enumerate(one[kind]):
                ids = [patch["id"] for patch in cluster["patches"]]
                assert len(set(ids)) == len(ids) <= 8
                assert bool(ids) == (cluster["share"] > 0)
                cosines = [patch["cosine"] for patch in cluster["patches"]]
                assert cosines == sorted(cosines, reverse=True)
                if ids:
                    with Image.open(strip_file(trained, n, k, context=kind == "context")) as strip:
                        assert strip.size == (SIDE * len(ids), SIDE)


def test_scores_are_those_of_the_centres(trained, mesh):
    run = Run.open(trained)
    prototypes = load_prototypes(run)
    weights = np.asarray(trained_state(run, devices=mesh).parameters["head"])
    expected = own_scores(prototypes.context_centres, prototypes.class_centres, weights)
    for n, one in enumerate(read_patches(trained, prototypes)["classes"]):
        np.testing.assert_allclose([cluster["score"] for cluster in one["context"]], expected[n], atol=1e-6)


def test_a_run_without_patches_is_mapped_without_the_page(program, trained, mapped, tmp_path):
    old = shutil.copytree(trained, tmp_path / "old", ignore=shutil.ignore_patterns("prototypes", "prototypes.json"))
    out = shutil.copytree(mapped[0], tmp_path / "out", ignore=shutil.ignore_patterns("prototypes*", "metrics.json"))
    finished = program("infer.py", "--ckpt", old, "--out", out)
    assert finished.code == 0, finished.err
    assert (out / "metrics.json").exists()
    assert not list(out.glob("prototypes*"))
