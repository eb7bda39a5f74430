"""The folder infer.py writes: what is in it, how it is scored, and that a stop loses nothing."""

import json
import shutil

import numpy as np
import pytest
from browsing import Browser
from PIL import Image
from test_commands import assert_one_line_error
from test_gallery import curve_in, embedded

from lpcam_jax.data.records import Record
from lpcam_jax.data.sources import seed_source
from lpcam_jax.machine.errors import UserError
from lpcam_jax.report.gallery import layer_file
from lpcam_jax.results.counts import THRESHOLDS, SeedScoring
from lpcam_jax.results.heatmaps import HeatMapFolder
from lpcam_jax.results.map_folder import MapFolder
from lpcam_jax.results.picture_maps import PictureMaps
from lpcam_jax.results.refinement import refinement
from lpcam_jax.results.scoring import score_maps
from lpcam_jax.seeds import seed_mask
from lpcam_jax.systems.lpcam.maps import METHODS
from lpcam_jax.training.run import Run

SEEDS_ONLY = refinement("none", background=0.3, out="")
KINDS = {"maps": "npz", "overlays": "jpg", "seeds": "png", "pseudo_masks": "png"}


def arrays_of(path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def times_of(folder) -> dict:
    return {path: path.stat().st_mtime_ns for kind in KINDS for path in (folder / kind).rglob("*") if path.is_file()}


def strictly_parsed(path) -> dict:
    def refuse(constant):
        raise ValueError(f"{constant} is not JSON")

    return json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)


@pytest.fixture(scope="module")
def source(trained):
    return seed_source(Run.open(trained).config)


@pytest.fixture
def copy(mapped, tmp_path):
    return shutil.copytree(mapped[0], tmp_path / "copy")


def confusion_by_hand(maps, classes, truth, threshold, *, count) -> np.ndarray:
    """[truth, prediction] of one picture's seed, pixel by pixel."""
    matrix = np.zeros((count, count))
    for row, column in np.ndindex(truth.shape):
        best, height = 0, threshold
        for k, n in enumerate(classes):
            if maps[row, column, k] > height:
                best, height = n + 1, maps[row, column, k]
        if truth[row, column] != 255:
            matrix[truth[row, column], best] += 1
    return matrix


def scores_by_hand(matrix) -> dict[str, float]:
    """Table 1 from a confusion matrix, class by class; a class that does not occur does not count."""
    names = ("miou", "precision", "recall", "fp", "fn")
    found = {name: [] for name in names}
    for k in range(len(matrix)):
        hit, truth, predicted = matrix[k, k], matrix[k].sum(), matrix[:, k].sum()
        union = truth + predicted - hit
        if union:
            found["miou"].append(hit / union)
            if k:
                found["fp"].append((predicted - hit) / union)
                found["fn"].append((truth - hit) / union)
        if predicted:
            found["precision"].append(hit / predicted)
        if truth:
            found["recall"].append(hit / truth)
    return {name: np.mean(values) for name, values in found.items()}


def test_every_picture_has_its_outputs_and_nothing_else_is_left(mapped, source):
    out, _ = mapped
    for kind, suffix in KINDS.items():
        assert {path.name for path in (out / kind).iterdir()} == {f"{name}.{suffix}" for name in source.ids}
    files = {"index.html", "metrics.json", "protocol.json", "thresholds.png", "origins.0.jsonl"}
    assert {path.name for path in out.iterdir()} == {*KINDS, "gallery", "prototypes", "prototypes.html", *files}


def test_maps_hold_what_is_documented(mapped, source):
    out, _ = mapped
    for index, name in enumerate(source.ids):
        arrays, classes = arrays_of(out / "maps" / f"{name}.npz"), np.flatnonzero(source.labels[index])
        assert set(arrays) == {"classes", "names", "probabilities", *METHODS}
        np.testing.assert_array_equal(arrays["classes"], classes)
        assert arrays["classes"].dtype == np.int16
        assert list(arrays["names"]) == [source.class_names[n] for n in classes]
        assert (arrays["probabilities"].shape, arrays["probabilities"].dtype) == ((6,), np.float32)
        for method in METHODS:
            assert (arrays[method].shape, arrays[method].dtype) == ((len(classes), *source.size(index)), np.float16)
            assert ((arrays[method] >= 0) & (arrays[method] <= 1)).all()


def assert_seeds_are_of(method, folder, names):
    """The seeds are the method's maps at the default threshold."""
    for name in names:
        arrays = arrays_of(folder / "maps" / f"{name}.npz")
        with Image.open(folder / "seeds" / f"{name}.png") as image:
            assert image.mode == "P"
            seed = np.array(image)
        maps = np.moveaxis(arrays[method].astype(np.float32), 0, -1)
        values = np.concatenate([[0], arrays["classes"] + 1])
        expected = values[seed_mask(maps, np.ones(maps.shape[-1]), background=0.3)]
        ranked = np.sort(np.concatenate([maps, np.full((*seed.shape, 1), np.float32(0.3))], axis=-1), axis=-1)
        clear = ranked[..., -1] - ranked[..., -2] > 1e-3  # than which float16 is finer
        np.testing.assert_array_equal(seed[clear], expected[clear])
        assert clear.mean() > 0.9


def test_seeds_are_the_thresholded_maps_as_a_palette_picture(mapped, source):
    assert_seeds_are_of("lpcam", mapped.directory, source.ids)


def test_pictures_for_people_can_be_opened(mapped, source):
    out, _ = mapped
    for path in [out / "thresholds.png", *(out / "overlays" / f"{name}.jpg" for name in source.ids[:3])]:
        with Image.open(path) as image:
            image.load()
            assert min(image.size) > 100


def test_metrics_are_strict_json_with_their_protocol(mapped, trained, source):
    metrics = strictly_parsed(mapped[0] / "metrics.json")
    assert (metrics["pictures"], metrics["scored"], metrics["skipped"]) == (24, 24, [])
    protocol = metrics["protocol"]
    assert protocol == strictly_parsed(mapped[0] / "protocol.json")
    assert protocol["class_names"] == list(source.class_names)
    assert (protocol["scales"], protocol["background"], protocol["mirror"], protocol["crf"]) == (
        [1.0, 0.5],
        0.3,
        True,
        False,
    )
    assert protocol["step"] == Run.open(trained).steps()[-1]


def test_scores_are_those_of_a_plain_count(mapped, source):
    out, text = mapped
    metrics = strictly_parsed(out / "metrics.json")
    for method in METHODS:
        for at in ("best", "fixed"):
            reported = metrics["scores"][method][at]
            matrix = np.zeros((7, 7))
            for index, name in enumerate(source.ids):
                arrays, truth = arrays_of(out / "maps" / f"{name}.npz"), source[index].mask
                heights = arrays[method].max(axis=0).astype(np.float32)
                winners = arrays["classes"][arrays[method].argmax(axis=0)] + 1
                seed = np.where(heights > np.float32(reported["threshold"]), winners, 0)
                np.add.at(matrix, (truth[truth != 255], seed[truth != 255]), 1)
            for name, value in scores_by_hand(matrix).items():
                np.testing.assert_allclose(reported[name], value, atol=1e-6, err_msg=f"{method} {at} {name}")
            assert f"{100 * reported['miou']:.1f}" in text
        curve = metrics["scores"][method]["curve"]
        assert metrics["scores"][method]["best"]["miou"] == max(curve["miou"])
    assert metrics["scores"]["cam"]["fixed"]["threshold"] == 0.3


def test_scoring_equals_a_loop_over_pixels():
    rng, scoring = np.random.default_rng(0), SeedScoring(3)
    expected = np.zeros((len(THRESHOLDS), 4, 4))
    for classes in ([0, 2], [1], [], [0, 1, 2]):
        maps = np.round(rng.random((4, 5, len(classes))), 2).astype(np.float32)  # ties with thresholds
        truth = rng.choice(np.uint8([0, 1, 2, 3, 255]), (4, 5))
        scoring.add(maps, np.array(classes, int), truth)
        for k, threshold in enumerate(THRESHOLDS):
            expected[k] += confusion_by_hand(maps, classes, truth, threshold, count=4)
    np.testing.assert_array_equal(scoring.matrices, expected)
    report = scoring.report()
    best = int(np.argmin(abs(THRESHOLDS - report["best"]["threshold"])))
    for name, value in scores_by_hand(expected[best]).items():
        np.testing.assert_allclose(report["best"][name], value, atol=1e-6)
    assert report["confusion"] == expected[best].tolist()
    json.dumps(report, allow_nan=False)


def test_masks_with_nothing_but_ignored_pixels_are_not_scored(copy, source):
    class Void:
        ids, class_names, has_masks = source.ids, source.class_names, True

        def __getitem__(self, index):
            record = source[index]
            return record if index == 0 else record._replace(mask=np.full_like(record.mask, 255))

    result, _ = score_maps(MapFolder(copy / "maps", METHODS), Void())
    assert (result["scored"], result["without_truth"]) == (1, 23)


def test_the_page_lists_every_picture_with_its_classes_and_scores(mapped, source):
    out, page = mapped[0], (mapped[0] / "index.html").read_text()
    data, metrics = embedded(page), strictly_parsed(mapped[0] / "metrics.json")
    best = {method: metrics["scores"][method]["best"]["threshold"] for method in ("cam", "lpcam")}
    assert data["thresholds"] == best
    assert [entry["id"] for entry in data["entries"]] == source.ids
    for index, entry in enumerate(data["entries"]):
        classes, record = np.flatnonzero(source.labels[index]), source[index]
        assert entry["classes"] == [source.class_names[n] for n in classes]
        assert entry["maps"] == len(set(entry["colors"])) == len(classes)
        for key in ("photo", *(pane["key"] for pane in data["panes"])):
            assert layer_file(out, key, entry["id"]).is_file()
        arrays = arrays_of(out / "maps" / f"{entry['id']}.npz")
        for method in ("cam", "lpcam"):
            maps = np.moveaxis(arrays[method].astype(np.float32), 0, -1)
            at = round(100 * best[method])
            matrix = confusion_by_hand(maps, classes, record.mask, THRESHOLDS[at], count=7)
            assert curve_in(entry["iou"][method])[at] == pytest.approx(scores_by_hand(matrix)["miou"], abs=0.003)
        difference = abs(arrays["cam"].astype(float) - arrays["lpcam"]).mean()
        assert entry["disagreement"] == pytest.approx(difference, abs=1e-3)
    scores = (f"{name} {100 * metrics['scores'][name.lower()]['best']['miou']:.1f}" for name in ("CAM", "LPCAM"))
    assert all(text in page for text in scores)


def test_the_page_works_in_a_browser(driver, mapped):
    browser = Browser(driver, mapped[0]).load("#sort=best")
    browser.until("[...document.images].filter((one) => one.complete && !one.naturalWidth).length", 0)
    assert len(browser.names()) == 24
    browser.find("#grid .card").click()
    browser.until("[...document.querySelectorAll('#panes img')].filter((one) => !one.naturalWidth).length", 0)
    assert [text.partition(" ·")[0] for text in browser.texts("figcaption")][:3] == ["photograph", "CAM", "LPCAM"]
    assert driver.get_log("browser") == []


@pytest.mark.rest
def test_a_folder_without_a_gallery_gets_one(program, trained, copy, mapped):
    shutil.rmtree(copy / "gallery")
    (copy / "index.html").unlink()
    finished = program("infer.py", "--ckpt", trained, "--out", copy)
    assert finished.code == 0, finished.err
    assert (copy / "index.html").read_bytes() == (mapped[0] / "index.html").read_bytes()
    assert_same_folder(copy, mapped[0])


def emptied(folder):
    next(folder.iterdir()).write_bytes(b"")  # as after a power failure


@pytest.mark.parametrize(
    ("kind", "change"),
    [("pseudo_masks", shutil.rmtree), ("pseudo_masks", emptied), ("seeds", emptied), ("overlays", emptied)],
)
def test_what_was_deleted_or_is_empty_is_made_again(program, trained, copy, mapped, kind, change):
    change(copy / kind)
    finished = program("infer.py", "--ckpt", trained, "--out", copy)
    assert finished.code == 0, finished.err
    assert_same_folder(copy, mapped[0])
    for path in (mapped[0] / kind).iterdir():
        assert (copy / kind / path.name).read_bytes() == path.read_bytes()


def assert_same_folder(one, other):
    """The same bits: shapes and batches are chosen for the whole data set, whatever part is left of it."""
    for kind, suffix in KINDS.items():
        names = {path.name for path in (other / kind).iterdir()}
        assert {path.name for path in (one / kind).glob(f"*.{suffix}")} == names
    for path in (other / "maps").iterdir():
        found, expected = arrays_of(one / "maps" / path.name), arrays_of(path)
        assert found.keys() == expected.keys()
        for name in expected:
            np.testing.assert_array_equal(found[name], expected[name], err_msg=f"{name} of {path.name}")
    assert strictly_parsed(one / "metrics.json") == strictly_parsed(other / "metrics.json")


@pytest.mark.parametrize("flag", [("--inference.scales", "1.0"), ("--inference.background", "0.4")])
def test_another_protocol_in_the_same_folder_is_refused(program, trained, copy, flag):
    before = times_of(copy)
    finished = program("infer.py", "--ckpt", trained, "--out", copy, *flag)
    assert finished.code == 2
    assert "holds heat maps of another model or protocol; choose another --out" in finished.err
    assert times_of(copy) == before


def test_another_model_in_the_same_folder_is_refused(program, trained, copy, tmp_path):
    other = shutil.copytree(trained, tmp_path / "other")
    prototypes = arrays_of(other / "prototypes.npz")
    np.savez(other / "prototypes.npz", **(prototypes | {"class_centres": 2 * prototypes["class_centres"]}))
    finished = program("infer.py", "--ckpt", other, "--out", copy)
    assert finished.code == 2
    assert "holds heat maps of another model or protocol" in finished.err


def test_a_damaged_map_is_named(program, trained, copy, source):
    path = copy / "maps" / f"{source.ids[0]}.npz"
    path.write_bytes(path.read_bytes()[:100])
    finished = program("infer.py", "--ckpt", trained, "--out", copy)
    assert finished.code == 2
    last = finished.err.splitlines()[-1]
    assert str(path) in last
    assert "delete it and run the command that wrote it again" in last


@pytest.mark.parametrize("classes", [[1], []])
def test_folders_in_ids_become_folders_inside_the_output(tmp_path, classes):
    folder = HeatMapFolder(tmp_path, ("cat", "dog"), METHODS, {}, refinement=SEEDS_ONLY)
    image = np.zeros((20, 30, 3), np.uint8)
    maps = {method: np.ones((len(classes), 20, 30), np.float16) for method in METHODS}
    record = Record("holiday/day 1/IMG.1", image, None, None)
    result = PictureMaps(np.array(classes, int), maps, np.array([0.2, 0.9], np.float32))
    folder.write(record, result)
    assert folder.is_done(record.id)
    for file in ("maps/{}.npz", "overlays/{}.jpg", "seeds/{}.png"):
        assert (tmp_path / file.format("holiday/day 1/IMG.1")).is_file()
    (_, maps), size = folder.maps.read(record.id, classes=2)
    assert (maps["lpcam"].shape, size) == ((len(classes), 20, 30), (20, 30))
    with Image.open(tmp_path / "seeds" / "holiday" / "day 1" / "IMG.1.png") as seed:
        assert (np.array(seed) == (2 if classes else 0)).all()


def test_a_folder_that_cannot_be_read_is_one_line(tmp_path):
    (tmp_path / "protocol.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"protocol.json cannot be read"):
        HeatMapFolder(tmp_path, ("cat",), METHODS, {}, refinement=SEEDS_ONLY)


@pytest.mark.rest
def test_bfloat16_is_an_option_of_the_maps_and_says_so(program, trained, mapped, tmp_path):
    words = ("--ckpt", trained, "--out", tmp_path / "maps", "--limit", 3, "--inference.precision", "bfloat16")
    finished = program("infer.py", *words)
    assert finished.code == 0, finished.err
    assert strictly_parsed(tmp_path / "maps" / "protocol.json")["precision"] == "bfloat16"
    assert strictly_parsed(mapped[0] / "protocol.json")["precision"] == "float32"
    difference = 0.0
    for file in (tmp_path / "maps" / "maps").iterdir():
        rounded, exact = (
            arrays_of(folder / "maps" / file.name)["probabilities"] for folder in (file.parents[1], mapped[0])
        )
        difference = max(difference, np.abs(rounded - exact).max())
    assert 0 < difference < 0.05


def test_seeds_can_be_those_of_cam(program, trained, mapped, source, tmp_path):
    out, names = tmp_path / "cam", source.ids[:3]
    words = ("infer.py", "--ckpt", trained, "--out", out, "--limit", 3, "--pages", "none")
    assert program(*words, "--inference.seeds", "cam").code == 0
    assert_seeds_are_of("cam", out, names)
    for name in names:
        maps, before = (arrays_of(folder / "maps" / f"{name}.npz") for folder in (out, mapped.directory))
        assert [key for key in maps if key in METHODS] == ["lpcam_f", "lpcam", "cam"]  # others take the last
        np.testing.assert_allclose(maps["cam"], before["cam"], atol=1e-3)  # other pictures share the batch
    refused = program(*words, "--inference.seeds", "affinity")
    assert_one_line_error(refused, ".*--inference.seeds affinity: there are no such maps without --inference.affinity")
