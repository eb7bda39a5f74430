"""The page of prototypes: what the file says, that it is made once, and what it does in a browser."""

import base64
import hashlib
import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import quote, unquote

import jax
import numpy as np
import pytest
from browsing import Browser
from flax import nnx
from PIL import Image

from lpcam_jax import similarity_maps
from lpcam_jax.data.records import Subset
from lpcam_jax.data.sources import seed_source
from lpcam_jax.machine.errors import UserError
from lpcam_jax.report.prototype_page import HeatMap, MappedPicture, Prototype, PrototypeClass, write_prototypes
from lpcam_jax.systems.lpcam.maps import METHODS, features_of_both, similarities
from lpcam_jax.systems.prototyping.prototype_gallery import atlas, choose_pictures, floor_of, write_prototype_page
from lpcam_jax.systems.prototyping.prototype_patches import read_patches
from lpcam_jax.systems.prototyping.stored_prototypes import load_prototypes
from lpcam_jax.training.run import Run
from lpcam_jax.training.state import graph_of, trained_state

HOSTILE = "</script><!--<script>alert(1)</script>&amp;\u2028{{data}}\"'"
STRIP, MAPS = "prototypes/patches/0000_class_00.jpg", "prototypes/similarity/0000/x.png"
HEAT = "gallery/lpcam/x.png"
OF_CLASSIFIER = {"methods": METHODS, "similarities": similarities}
GRID = (3, 4)


def prototype(score=0.95, kept=True, share=0.5, strip=STRIP, patches=("t1", "t2", "t3")):
    return Prototype(score, kept, share, strip, patches)


def picture(name, photo):
    maps = [HeatMap(method, HEAT, 1, 3) for method in ("CAM", "LPCAM")]
    return MappedPicture(name, f"prototypes/photos/{photo}.jpg", (40, 60), MAPS, GRID, 16, 0.0, (0.25, 0.75), maps)


EMPTY = prototype(1 / 3, False, 0, "", ())
CLASSES = [
    PrototypeClass(
        "cat10",
        [prototype(0.2, False, 0.6), prototype(0.99, True, 0.1), prototype(0.95, True, 0.3)],
        [prototype(0.5, True, 0.2), prototype(0.01, False, 0.7), prototype(0.97, False, 0.1, patches=("t1",))],
        [picture("a", "a"), picture(HOSTILE, "b")],
    ),
    PrototypeClass(
        "cat9",
        [EMPTY, prototype(0.6, True, 1.0), EMPTY],
        [EMPTY, prototype(0.5, True, 1.0), EMPTY],
        [picture("b", "b")],
    ),
    PrototypeClass(HOSTILE, [EMPTY] * 3, [EMPTY] * 3, []),
]


def written(folder: Path, classes=CLASSES) -> str:
    write_prototypes(folder / "prototypes.html", classes, mu_f=0.9, context=(0.05, 0.9))
    return (folder / "prototypes.html").read_text(encoding="utf-8")


def embedded(page: str) -> dict:
    return json.loads(re.search('<script id="data" type="application/json">(.*?)</script>', page, re.DOTALL)[1])


def test_embedded_values_are_the_given_ones(tmp_path):
    data = embedded(written(tmp_path))
    assert (data["mu_f"], data["context"]) == (0.9, [0.05, 0.9])
    assert [one["name"] for one in data["classes"]] == [one.name for one in CLASSES]
    for found, given in zip(data["classes"], CLASSES, strict=True):
        for kind, wanted in (("class", given.prototypes), ("context", given.context)):
            assert [Prototype(**{**one, "patches": tuple(one["patches"])}) for one in found[kind]] == wanted
        assert [one["id"] for one in found["pictures"]] == [one.id for one in given.pictures]
    assert (data["heat"][0], data["heat"][-1]) == ([0, 0, 4], [252, 255, 164])  # of inferno


def test_names_cannot_leave_their_place(tmp_path):
    plain = written(tmp_path, [PrototypeClass("x", [EMPTY], [EMPTY], [picture("a", "a")])])
    page = written(tmp_path, [PrototypeClass(HOSTILE, [EMPTY], [EMPTY], [picture(HOSTILE, "a")])])
    assert re.findall("<[^>]*>", page) == re.findall("<[^>]*>", plain)
    assert "\u2028" not in page


def test_policy_allows_this_style_and_script_only(tmp_path):
    page = written(tmp_path)
    policy = re.search('"Content-Security-Policy" content="(.*?)"', page)[1]
    for tag in ("style", "script"):
        text = re.search(f"<{tag}>(.*?)</{tag}>", page, re.DOTALL)[1]
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}';" in policy
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    assert re.findall(r"url\([^)]*\)", page) == ["url(#heat)", "url(#map)"]
    assert not re.search(r"https?:|//[a-z]+\.|@import|\bon\w+=|\sstyle=|innerHTML", page)


def test_pictures_of_a_class_lie_evenly_in_the_data_set():
    mapped = np.zeros((100, 3), bool)
    mapped[10:90, 0] = mapped[[3, 50], 1] = True
    chosen = choose_pictures(mapped, count=5)
    assert list(chosen) == [3, 10, 30, 50, 69, 89]
    assert chosen[50] == [0, 1]
    assert chosen[3] == [1]
    assert choose_pictures(np.zeros((4, 2), bool)) == {}


def test_an_atlas_holds_every_map_with_its_edge_around_it():
    maps = np.random.default_rng(0).uniform(-1, 1, (3, 4, 5))
    grey = atlas(maps)
    assert (grey.shape, grey.dtype) == ((25, 6), np.uint8)
    for k in range(5):
        cell = grey[5 * k : 5 * k + 5]
        np.testing.assert_array_equal(cell[1:-1, 1:-1], np.rint(255 * np.clip(maps[..., k], 0, 1)))
        np.testing.assert_array_equal(cell, np.pad(cell[1:-1, 1:-1], 1, mode="edge"))


def test_black_is_the_least_cosine_that_features_can_have():
    cosines = np.float64([-1, -0.5, 0, 1]).reshape(1, 4, 1)
    assert atlas(cosines, floor=-1)[1, 1:-1].tolist() == [0, 64, 128, 255]
    assert [floor_of(SimpleNamespace(nonnegative=known)) for known in (True, False)] == [0, -1]


def test_the_page_of_a_run_holds_all_it_shows(mapped, trained):
    out, _ = mapped
    run = Run.open(trained)
    source = seed_source(run.config)
    data = embedded((out / "prototypes.html").read_text(encoding="utf-8"))
    known = read_patches(trained, load_prototypes(run))["classes"]
    linked = set()
    for n, (found, one) in enumerate(zip(data["classes"], known, strict=True)):
        assert found["name"] == run.class_names[n] == one["name"]
        for kind in ("class", "context"):
            for cluster, expected in zip(found[kind], one[kind], strict=True):
                assert [cluster[key] for key in ("score", "kept", "share")] == [
                    expected[key] for key in ("score", "kept", "share")
                ]
                assert cluster["patches"] == [patch["id"] for patch in expected["patches"]]
                linked.add(cluster["strip"])
        having = np.flatnonzero(source.labels[:, n])
        assert len(found["pictures"]) == min(6, len(having))
        for shown in found["pictures"]:
            assert source.ids.index(shown["id"]) in having
            linked.add(shown["similarity"])
            assert (out / unquote(shown["photo"])).is_file()
            with Image.open(out / unquote(shown["similarity"])) as image:
                assert image.mode == "L"
                rows, columns = shown["grid"]
                assert image.size == (columns + 2, (rows + 2) * 2 * len(one["class"]))
            assert [one["title"] for one in shown["maps"]] == ["CAM", "LPCAM"]
            with np.load(out / "maps" / f"{shown['id']}.npz", allow_pickle=False) as arrays:
                names, maps = arrays["names"].tolist(), arrays["lpcam"]
            heat = shown["maps"][1]
            assert (names[heat["cell"]], len(names)) == (found["name"], heat["cells"])
            with Image.open(out / unquote(heat["file"])) as image:
                stacked = np.asarray(image) / 255
            mine = np.split(stacked, heat["cells"])[heat["cell"]]
            np.testing.assert_allclose(mine, maps[heat["cell"]], atol=0.01)  # small pictures are not resized
    files = {path.relative_to(out).as_posix() for path in (out / "prototypes").rglob("*") if path.is_file()}
    assert {unquote(link) for link in linked if link} == files


def test_maps_are_the_cosines_of_the_pictures_features(mapped, trained, mesh):
    run = Run.open(trained)
    state, source, prototypes = trained_state(run, devices=mesh), seed_source(run.config), load_prototypes(run)
    shown = embedded((mapped[0] / "prototypes.html").read_text(encoding="utf-8"))["classes"][1]["pictures"][0]
    image = source[source.ids.index(shown["id"])].image
    graph, *_ = graph_of(run.config, len(run.class_names))

    @jax.jit
    def features(parameters, batch_stats, pictures, sizes):
        straight, mirrored, _ = features_of_both(nnx.merge(graph, parameters, batch_stats), pictures, sizes)
        return straight + mirrored

    found = features(state.parameters, state.batch_stats, image[None], np.int32([image.shape[:2]]))
    for context, centres in enumerate((prototypes.class_centres, prototypes.context_centres)):
        expected = np.asarray(similarity_maps(found, centres))[0, :, :, 1]
        rows, columns, clusters = expected.shape
        assert [rows, columns] == shown["grid"]
        with Image.open(mapped[0] / unquote(shown["similarity"])) as picture:
            cells = np.asarray(picture).reshape(2, clusters, rows + 2, columns + 2)[context, :, 1:-1, 1:-1]
        np.testing.assert_allclose(np.moveaxis(cells, 0, -1) / 255, np.clip(expected, 0, 1), atol=0.5 / 255 + 1e-4)


def test_nothing_is_made_twice_and_what_is_lost_is_made_again(mapped, trained, mesh, tmp_path):
    out = shutil.copytree(mapped[0], tmp_path / "out")
    run = Run.open(trained)
    state, source, prototypes = trained_state(run, devices=mesh), seed_source(run.config), load_prototypes(run)

    def files():
        return [path for path in (out / "prototypes").rglob("*") if path.is_file()]

    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in files()}
    page = (out / "prototypes.html").read_bytes()
    write_prototype_page(run, state, prototypes, source, out, **OF_CLASSIFIER, devices=mesh)
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in files()} == before
    lost = [next((out / "prototypes" / kind).rglob("*.*g")) for kind in ("patches", "similarity")]
    for path in [out / "prototypes.html", *lost]:
        path.unlink()
    write_prototype_page(run, state, prototypes, source, out, **OF_CLASSIFIER, devices=mesh)
    assert {path: path.read_bytes() for path in files()} == {path: content for path, (_, content) in before.items()}
    assert (out / "prototypes.html").read_bytes() == page


def test_a_similarity_map_that_is_another_file_is_one_line(mapped, trained, mesh, tmp_path):
    out = shutil.copytree(mapped[0], tmp_path / "out")
    file = next((out / "prototypes" / "similarity").rglob("*.png"))
    file.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9")
    run = Run.open(trained)
    arguments = run, trained_state(run, devices=mesh), load_prototypes(run), seed_source(run.config), out
    with pytest.raises(UserError, match=r"\.png: not a picture in a supported format .*; then run infer\.py again\.$"):
        write_prototype_page(*arguments, **OF_CLASSIFIER, devices=mesh)


def test_pictures_without_labels_are_shown_for_the_classes_they_were_mapped_for(mapped, trained, mesh, tmp_path):
    out = shutil.copytree(mapped[0], tmp_path / "out")
    page = (out / "prototypes.html").read_bytes()
    (out / "prototypes.html").unlink()
    run = Run.open(trained)
    source = seed_source(run.config)
    unlabelled = Subset(source, range(len(source)))
    unlabelled.labels = None
    arguments = run, trained_state(run, devices=mesh), load_prototypes(run), unlabelled, out
    write_prototype_page(*arguments, **OF_CLASSIFIER, devices=mesh)
    assert (out / "prototypes.html").read_bytes() == page


@pytest.fixture
def browser(driver, tmp_path):
    """The page of CLASSES and its pictures; in the end the console must be empty."""
    strip = np.repeat(np.uint8([[[255, 0, 0], [0, 255, 0], [0, 0, 255]]]), 96, axis=1).repeat(96, axis=0)
    for name, image in {
        STRIP: strip,
        MAPS: atlas(np.random.default_rng(0).random((*GRID, 6))),
        HEAT: np.repeat(np.uint8([[0], [255], [0]]), 40, axis=0).repeat(60, axis=1),
        **{f"prototypes/photos/{name}.jpg": np.full((40, 60, 3), 99, np.uint8) for name in "ab"},
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(tmp_path / name)
    written(tmp_path)
    return opened(driver, tmp_path)


def opened(driver, folder: Path) -> Browser:
    driver.get_log("browser")
    browser = Browser(driver, folder)
    browser.page = folder / "prototypes.html"
    return browser


@pytest.fixture(autouse=True)
def quiet(request):
    """No browser test leaves a word in the console."""
    yield
    if "driver" in request.fixturenames:
        assert request.getfixturevalue("driver").get_log("browser") == []


def pressed(browser) -> list[bool]:
    return browser.run("return [...document.querySelectorAll('#pictures button')].map((one) => one.ariaPressed)")


def cards(browser, kind: str) -> list[list[str]]:
    """Heading, verdict and score of each card."""
    return browser.run(
        f"return [...document.querySelectorAll('#{kind}-cards .card')].map((card) => "
        "['h3', '.verdict', '.measure'].map((part) => card.querySelector(part).textContent))"
    )


def test_cards_come_kept_first_and_say_why_others_are_rejected(browser):
    browser.load("#class=cat10")
    assert cards(browser, "class") == [
        ["Prototype 1", "✓ kept", "score 0.95"],
        ["Prototype 2", "✓ kept", "score 0.99"],
        ["Cluster 3", "✕ rejected: score not above 0.9", "score 0.20"],
    ]
    verdicts = [verdict for _, verdict, _ in cards(browser, "context")]
    assert verdicts[0] == "✓ kept: subtracted"
    assert verdicts[1].startswith("✕ rejected: score not above 0.05")
    assert verdicts[2].startswith("✕ rejected: score not below 0.9")
    assert browser.texts("#class-cards .rejected h3") == ["Cluster 3"]
    browser.choose("#class", "cat9")
    assert cards(browser, "class") == [["Prototype 1", "✓ kept, as the best: none scored above 0.9", "score 0.60"]]


def test_pictures_are_shown_and_names_are_text(browser):
    browser.load()
    assert browser.texts("#class option") == [HOSTILE, "cat9", "cat10"]
    browser.choose("#class", "cat10")
    assert browser.texts("#pictures span") == ["1: a", f"2: {HOSTILE}"]
    browser.run("document.querySelectorAll('img').forEach((image) => { image.loading = 'eager'; })")
    browser.until("[...document.images].filter((image) => image.naturalWidth === 0).length", 0)
    assert browser.run("return document.images.length") == 2 + 2 * 2 + 6 * 2 + 5 * 3 + 1
    assert browser.run("return document.scripts.length") == 2
    assert browser.find("a[href='index.html']").is_displayed()


def test_a_class_without_prototypes_says_so(browser):
    browser.load(f"#class={quote(HOSTILE)}")
    assert cards(browser, "class") == cards(browser, "context") == []
    assert browser.texts("#class-hint") == [
        f"No feature of the training pictures is of {HOSTILE}: there is no prototype."
    ]
    assert browser.find("#nothing").is_displayed()
    assert not browser.find("#legend").is_displayed()


def test_the_hint_says_when_none_passed(browser):
    browser.load("#class=cat9")
    [hint] = browser.texts("#class-hint")
    assert hint.startswith("None of 1 clusters has a score above 0.9")
    assert hint.endswith("the best is used.")


def test_patches_are_the_squares_of_the_strip(browser):
    browser.load("#class=cat10")
    row = browser.find("#class-cards .patches")
    places = [image.value_of_css_property("object-position") for image in row.find_elements("tag name", "img")]
    assert places == ["0% 0px", "50% 0px", "100% 0px"]
    assert row.get_attribute("aria-label") == "Patches of t1, t2, t3"


def test_choosing_another_picture_changes_the_maps(browser):
    browser.load("#class=cat10")
    source = "[...new Set([...document.querySelectorAll('.card .map > img')].map((one) => one.src.at(-5)))].join()"
    assert browser.run(f"return {source}") == "a"
    browser.find("#pictures li:nth-child(2) button").click()
    assert browser.run(f"return {source}") == "b"
    assert pressed(browser) == ["false", "true"]
    browser.press("1")
    assert browser.run(f"return {source}") == "a"
    assert pressed(browser) == ["true", "false"]


@pytest.mark.parametrize(
    ("name", "kind", "cell"), [("cat10", "context", 3), ("cat9", "class", 1), ("cat9", "context", 4)]
)
def test_a_map_lies_where_its_features_are(browser, name, kind, cell):
    place = browser.load(f"#class={name}").run(
        f"""
        const map = document.querySelector("#{kind}-cards .map").getBoundingClientRect();
        const atlas = document.querySelector("#{kind}-cards .heat img").getBoundingClientRect();
        const scale = 60 / map.width; // to pixels of the picture
        return [atlas.left - map.left, atlas.top - map.top, atlas.width, atlas.height].map((one) => one * scale);
        """
    )
    assert place == pytest.approx([-16, -16 * (cell * 5 + 1), 16 * 6, 16 * 5 * 6], abs=0.5)


def test_heat_maps_of_the_class_stand_above_its_prototypes(browser):
    from io import BytesIO

    browser.load("#class=cat10")
    assert browser.texts("#maps figcaption") == ["CAM", "LPCAM"]
    browser.until("[...document.querySelectorAll('#maps img')].filter((image) => !image.naturalWidth).length", 0)
    with Image.open(BytesIO(browser.find("#maps figure:last-child .map").screenshot_as_png)) as image:
        shown = np.asarray(image.convert("RGB")).astype(int)[10:-10, 10:-10]
    assert (shown[..., 0] > 180).all()  # the middle map of three is hot everywhere; the photograph is grey
    browser.load(f"#class={quote(HOSTILE)}")
    assert not browser.find("#maps").is_displayed()


def test_opens_steps_and_closes(browser):
    from selenium.webdriver.common.keys import Keys

    browser.load("#class=cat10").find("#class-cards button.plain").click()
    browser.opened("cat10: Prototype 1 on a")
    browser.hash("#class=cat10&prototype=class-2")
    assert not browser.find("#previous").is_enabled()
    browser.press(Keys.RIGHT)
    browser.opened("cat10: Prototype 2 on a")
    for _ in range(2):
        browser.find("#next").click()
    browser.opened("cat10: Context prototype 1 on a")
    browser.press("2")
    browser.opened(f"cat10: Context prototype 1 on {HOSTILE}")
    browser.press(Keys.ESCAPE)
    browser.opened(None)
    assert pressed(browser) == ["false", "true"]
    browser.until("new URLSearchParams(location.hash.slice(1)).get('picture')", HOSTILE)
    browser.find("#class-cards button.plain").click()
    browser.opened(f"cat10: Prototype 1 on {HOSTILE}")
    browser.driver.back()
    browser.opened(None)


def test_the_address_restores_what_was_shown(browser):
    browser.load("#class=cat10")
    browser.press("2")
    browser.find("#context-cards button.plain").click()
    browser.opened(f"cat10: Context prototype 1 on {HOSTILE}")
    address = browser.run("return location.hash")
    browser.load(address).opened(f"cat10: Context prototype 1 on {HOSTILE}")
    browser.load("#class=nothing&picture=none&prototype=class-9").opened(None)
    assert browser.run("return document.getElementById('class').selectedIndex") == 0


def test_strength_of_the_maps(browser):
    from selenium.webdriver.common.keys import Keys

    browser.load("#class=cat10")
    opacity = "getComputedStyle(document.querySelector('.heat')).opacity"
    assert browser.run(f"return {opacity}") == "0.8"
    browser.find("#opacity").send_keys(Keys.HOME)
    browser.until(opacity, "0")


def test_the_page_of_a_run_shows_its_patches_and_maps(mapped, driver):
    browser = opened(driver, mapped[0]).load()
    for at in range(6):
        browser.run(f"const one = document.getElementById('class'); one.selectedIndex = {at}; "
                    "one.dispatchEvent(new Event('change'));")  # fmt: skip
        browser.run("document.querySelectorAll('img').forEach((image) => { image.loading = 'eager'; })")
        browser.until("[...document.images].filter((image) => image.naturalWidth === 0).length", 0)
        assert browser.run("return document.querySelectorAll('.card .patches img').length") > 0
        assert browser.run("return document.querySelectorAll('.card .map').length") > 0
