"""The page of results: what the file says, and, where there is a browser to drive, what it does."""

import base64
import hashlib
import html
import io
import json
import os
import re
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from browsing import Browser
from PIL import Image

from lpcam_jax.machine.errors import UserError
from lpcam_jax.report.gallery import Entry, Gallery, Look, Pane, layer_file, write_gallery, write_layers
from lpcam_jax.report.layers import COLORS, map_layer, mask_layer, photo_layer, picture_colors, seed_layer
from lpcam_jax.seeds import seed_mask

HOSTILE = "</script><!--<script>alert(1)</script>&amp;\u2028{{data}}\"'"
STRANGE = ["a b", "50%", "%41", "#1", "what?", "\"quoted\" 'twice'", "猫 e\u0301", "back\\slash", "a:b", "&amp;", "x/y"]
PANES = (
    Pane("cam", "CAM", "map", "cam"),
    Pane("lpcam", "LPCAM", "map", "lpcam"),
    Pane("truth", "ground truth", "mask"),
    Pane("seed_lpcam", "seed of LPCAM", "seed", "lpcam"),
)
LOOKS = (Look("heat maps", ("cam", "lpcam")), Look("seed and ground truth", ("seed_lpcam", "truth")))
GALLERY = Gallery("Results", PANES, LOOKS, {"cam": 0.1, "lpcam": 0.3}, rank="lpcam", against="cam")
THRESHOLDS = np.arange(100) / 100


def falling(at: float, top: float = 1.0) -> np.ndarray:
    """A curve of IoUs: `top` below a threshold, 0.2 from there on."""
    return np.where(at > THRESHOLDS, top, 0.2)


ENTRIES = [
    Entry("a10", (40, 30), ("cat",), (0,), 1, {"cam": falling(0.5, 0.6), "lpcam": falling(0.5, 0.9)}, 0.1),
    Entry("a9", (40, 30), ("cat", "dog"), (0, 1), 2, {"cam": falling(1, 0.3), "lpcam": falling(1, 0.24)}, 0.3),
    Entry("b/c", (30, 40), ("dog",), (1,), 1, missing=("truth",), note="dog 93%"),
    Entry(
        HOSTILE, (4, 3), (HOSTILE,), (2,), 1, {"cam": falling(1, 0.1), "lpcam": falling(0.4, 0.5)}, 0.2, note=HOSTILE
    ),
]
NAMES = {"a9", "a10", "b/c", HOSTILE}


def written(folder: Path, entries, gallery: Gallery = GALLERY, **words) -> str:
    write_gallery(folder / "index.html", gallery._replace(**words), entries)
    return (folder / "index.html").read_text(encoding="utf-8")


def embedded(page: str) -> dict:
    return json.loads(re.search('<script id="data" type="application/json">(.*?)</script>', page, re.DOTALL)[1])


def curve_in(text: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), np.uint8) / 250


def test_embedded_entries_are_the_given_ones(tmp_path):
    got = embedded(written(tmp_path, ENTRIES))["entries"]
    assert [one["id"] for one in got] == [one.id for one in ENTRIES]
    for one, entry in zip(got, ENTRIES, strict=True):
        assert (one["size"], one["classes"]) == ([*entry.size], [*entry.classes])
        assert one.get("note", "") == entry.note
        for method, curve in entry.iou.items():
            np.testing.assert_allclose(curve_in(one["iou"][method]), curve, atol=0.002)


def test_names_cannot_leave_their_place(tmp_path):
    plain = written(tmp_path, [], summary=["x"])
    page = written(tmp_path, ENTRIES, title=HOSTILE, summary=[HOSTILE], links=[(HOSTILE, HOSTILE)])
    assert re.findall("<[^>]*>", page) == re.findall("<[^>]*>", plain)
    assert "\u2028" not in re.sub("<title>.*</title>|<h1.*</h1>|<p>.*</p>", "", page)
    assert f"<title>{html.escape(HOSTILE)}</title>" in page
    assert f"<p>{html.escape(HOSTILE)}</p>" in page


@pytest.mark.parametrize("name", STRANGE)
def test_paths_are_relative_urls(tmp_path, name):
    [entry] = embedded(written(tmp_path, [Entry(name, (4, 3))]))["entries"]
    path = entry.get("path", entry["id"])
    assert re.fullmatch("[A-Za-z0-9_.~/%-]+", path)
    assert unquote(path) == name


@pytest.mark.skipif(os.name == "nt", reason="file names are text there")
def test_names_may_be_no_text(tmp_path):
    page = written(tmp_path, [Entry("\udc80", (4, 3), ("\udc80",), (0,))], title="\udc80")
    assert embedded(page)["entries"] == [
        {"id": r"\udc80", "path": "%80", "size": [4, 3], "classes": [r"\udc80"], "colors": [0]}
    ]


def test_policy_allows_this_style_and_script_only(tmp_path):
    page = written(tmp_path, ENTRIES)
    policy = re.search('"Content-Security-Policy" content="(.*?)"', page)[1]
    for tag in ("style", "script"):
        text = re.search(f"<{tag}>(.*?)</{tag}>", page, re.DOTALL)[1]
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}';" in policy
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    assert not re.search(r"https?:|//[a-z]+\.|url\((?!\"#)|@import|\bon\w+=|\sstyle=", page)


def test_empty_gallery(tmp_path):
    assert embedded(written(tmp_path, []))["entries"] == []


def many(count: int) -> list[Entry]:
    curves = {"cam": falling(0.5), "lpcam": falling(0.7)}
    return [Entry(f"2012_{n:06}", (500, 375), ("cat", "dog"), (0, 1), 2, curves, n / count) for n in range(count)]


def test_ten_thousand_entries_are_small(tmp_path):
    assert len(written(tmp_path, many(10_000))) < 5e6
    assert os.listdir(tmp_path) == ["index.html"]


def test_says_what_cannot_be_written(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UserError, match="cannot write"):
        write_gallery(tmp_path / "file" / "index.html", GALLERY, ENTRIES)


# what is laid over a photograph


def blob(height: int, width: int, row: float, column: float) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width]
    return np.exp(-((rows / height - row) ** 2 + (columns / width - column) ** 2) * 20).astype(np.float32)


MAPS = np.stack([blob(60, 80, 0.4, 0.3), 0.8 * blob(60, 80, 0.6, 0.7)])


def opened(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content))


def test_maps_are_stacked_as_grey(tmp_path):
    picture = opened(map_layer(MAPS))
    assert (picture.mode, picture.size) == ("L", (80, 120))
    np.testing.assert_allclose(np.asarray(picture) / 255, np.concatenate(MAPS), atol=0.5 / 255 + 1e-6)


@pytest.mark.parametrize("threshold", [0.1, 0.3, 0.7])
def test_a_seed_layer_cut_at_a_threshold_is_the_seed(threshold):
    red, green, blue, heights = np.moveaxis(np.asarray(opened(seed_layer(MAPS, [3, 5]))), -1, 0)
    colors = [tuple(bytes.fromhex(COLORS[k][1:])) for k in (3, 5)]
    seen = np.zeros(heights.shape, int)
    for value, color in enumerate(colors, 1):
        seen[(red == color[0]) & (green == color[1]) & (blue == color[2]) & (heights > 255 * threshold)] = value
    expected = seed_mask(np.moveaxis(MAPS, 0, -1), np.ones(2), background=threshold)
    sure = abs(MAPS.max(axis=0) - threshold) > 1 / 255
    np.testing.assert_array_equal(seen[sure], expected[sure])
    assert sure.mean() > 0.9


def test_the_background_of_a_mask_layer_is_transparent():
    mask = np.array([[0, 3], [9, 255]], np.uint8)
    pixels = np.asarray(opened(mask_layer(mask, [2, 8], [0, 6])).convert("RGBA"))
    assert pixels[0, 0, 3] == 0
    assert tuple(pixels[0, 1]) == (*bytes.fromhex(COLORS[0][1:]), 255)
    assert tuple(pixels[1, 0]) == (*bytes.fromhex(COLORS[6][1:]), 255)
    assert len(set(pixels[1, 1, :3])) == 1  # ignored: grey


@pytest.mark.parametrize("shape", [(1, 1), (1, 3000), (2000, 1), (700, 900)])
def test_layers_of_any_size_are_small(shape):
    image, maps = np.zeros((*shape, 3), np.uint8), np.zeros((1, *shape), np.float32)
    assert max(opened(photo_layer(image)).size) == min(max(shape), 640)
    assert max(opened(mask_layer(maps[0].astype(np.uint8), [], [])).size) == min(max(shape), 640)
    assert max(opened(map_layer(maps)).size) == min(max(shape), 256)


def test_classes_of_a_picture_have_different_colors():
    assert picture_colors([8, 1, 2]) == [3, 1, 2]  # the eighth would be as the first
    assert picture_colors([4]) == [4]
    assert len(set(picture_colors(range(7, 14)))) == 7
    assert len(picture_colors(range(20))) == 20


# in a browser


@pytest.fixture
def browser(driver, tmp_path):
    """The page of ENTRIES and their pictures; in the end the console must be empty."""
    for entry in ENTRIES:
        draw(tmp_path, entry)
    written(tmp_path, ENTRIES, title=HOSTILE, summary=["mIoU 62.5", HOSTILE], links=[("prototypes", "prototypes.html")])
    driver.get_log("browser")
    yield Browser(driver, tmp_path)
    assert driver.get_log("browser") == []


def draw(folder: Path, entry: Entry) -> None:
    width, height = entry.size
    maps = np.stack([blob(height, width, 0.5, 0.5)] * entry.maps)
    layers = {
        "photo": photo_layer(np.full((height, width, 3), (0, 128, 128), np.uint8)),
        "cam": map_layer(maps),
        "lpcam": map_layer(maps),
        "seed_lpcam": seed_layer(maps, entry.colors),
        "truth": mask_layer((maps[0] > 0.5).astype(np.uint8), [0], entry.colors[:1]),
    }
    there = [(key, layer) for key, layer in layers.items() if key not in entry.missing]
    write_layers(folder, entry.id, there, [pane.key for pane in PANES])


def test_page_shows_names_as_text(browser):
    browser.load()
    assert set(browser.names()) == NAMES
    assert HOSTILE in browser.texts(".chip")
    assert HOSTILE in browser.texts(".note")
    assert browser.texts("h1") == [HOSTILE]
    assert browser.texts("header p") == ["mIoU 62.5", HOSTILE, "prototypes"]
    assert browser.run("return document.title") == HOSTILE
    assert browser.texts("#count") == ["4 pictures · mean IoU of a picture: CAM 33%, LPCAM 55%"]
    browser.until("[...document.images].filter((image) => image.src && !image.naturalWidth).length", 0)
    assert browser.run("return document.scripts.length") == 2


def test_sorts(browser):
    browser.load()
    assert browser.names().index("a9") < browser.names().index("a10")
    for order, names in {
        "IoU, worst first": ["a9", HOSTILE, "a10", "b/c"],
        "IoU, best first": ["a10", HOSTILE, "a9", "b/c"],
        "loss to CAM, largest first": ["a9", "a10", HOSTILE, "b/c"],
        "gain over CAM, largest first": [HOSTILE, "a10", "a9", "b/c"],
        "disagreement of CAM and LPCAM": ["a9", HOSTILE, "a10", "b/c"],
    }.items():
        browser.choose("#sort", order)
        assert browser.names() == names
    browser.hash("#sort=disagreement")


def test_filters_and_searches(browser):
    browser.load()
    browser.choose("#class", "cat (2)")
    assert browser.names() == ["a9", "a10"]
    assert browser.texts("#count") == ["2 of 4 pictures · mean IoU of a picture: CAM 45%, LPCAM 57%"]
    browser.find("#search").send_keys("A1")
    assert browser.names() == ["a10"]
    browser.hash("#search=A1&class=cat")
    browser.find("#search").send_keys("?")
    assert browser.names() == []
    assert browser.texts("#end") == ["No such picture."]
    browser.find("#reset").click()
    assert set(browser.names()) == NAMES
    browser.hash("")


def test_opens_steps_and_closes(browser):
    from selenium.webdriver.common.keys import Keys

    browser.load("#sort=worst").find("#grid .card").click()
    browser.opened("a9")
    browser.hash("#sort=worst&open=a9")
    assert browser.texts("#place") == ["1 of 4"]
    assert not browser.find("#previous").is_enabled()
    assert [text.partition(" ·")[0] for text in browser.texts("figcaption")] == [
        "photograph",
        *(p.title for p in PANES),
    ]
    browser.until("[...document.querySelectorAll('#panes img')].filter((one) => !one.naturalWidth).length", 0)
    for key, name in [(Keys.RIGHT, HOSTILE), ("j", "a10"), ("k", HOSTILE), ("j", "a10"), (Keys.LEFT, HOSTILE)]:
        browser.press(key)
        browser.opened(name)
    browser.find("#next").click()
    browser.opened("a10")
    browser.press(Keys.ESCAPE)
    browser.opened(None)
    browser.hash("#sort=worst")
    browser.until("document.activeElement.querySelector('.name')?.textContent", "a10")
    browser.press(Keys.ENTER)
    browser.opened("a10")
    browser.driver.back()
    browser.opened(None)


def test_link_restores_the_view(browser):
    browser.load("#search=&class=dog&sort=best&open=b%2Fc&unknown=1").opened("b/c")
    assert browser.names() == ["a9", "b/c"]
    assert browser.run("return document.getElementById('sort').value") == "best"
    browser.find("#close").click()
    browser.opened(None)
    browser.load("#class=nothing&sort=constructor&open=nobody")
    assert set(browser.names()) == NAMES
    browser.opened(None)


def test_hostile_name_survives_the_address(browser):
    browser.load("#sort=best").run("document.querySelectorAll('.card')[1].click()")
    browser.opened(HOSTILE)
    address = browser.run("return location.hash")
    browser.load(address).opened(HOSTILE)


def pixels(element) -> np.ndarray:
    """What the browser drew, uint8 (H, W, 3)."""
    return np.asarray(Image.open(io.BytesIO(element.screenshot_as_png)).convert("RGB")).astype(int)


def slide(browser, key: str, value: float) -> None:
    """Move the slider of a key, as a hand would: input events, then one change event."""
    browser.run(
        f"""const {{ input }} = [...document.querySelectorAll("#tuning label")].find((one) => one.key === "{key}");
        input.value = "{value}";
        for (const name of ["input", "change"]) input.dispatchEvent(new Event(name, {{ bubbles: true }}));"""
    )


def tinted(browser, selector: str) -> float:
    """Share of an element's pixels that are not the photograph's."""
    return (abs(pixels(browser.find(selector)) - (0, 128, 128)).max(axis=-1) > 40).mean()


def test_sliders_change_what_is_seen_at_once(browser):
    browser.load("#open=a10").opened("a10")
    browser.until("[...document.querySelectorAll('#panes img')].filter((one) => !one.naturalWidth).length", 0)
    seed, heat = "figure:nth-child(5) .view", "figure:nth-child(3) .view"
    shares = []
    for threshold in (0.9, 0.6, 0.3):
        slide(browser, "threshold-lpcam", threshold)
        shares.append(tinted(browser, seed))
    blob_above = [(blob(30, 40, 0.5, 0.5) > t).mean() for t in (0.9, 0.6, 0.3)]
    np.testing.assert_allclose(shares, blob_above, atol=0.04)
    assert browser.texts("figcaption")[4] == "seed of LPCAM · IoU 90%"
    slide(browser, "threshold-lpcam", 0.6)
    assert browser.texts("figcaption")[4] == "seed of LPCAM · IoU 20%"
    browser.hash("#open=a10&threshold-lpcam=0.60")

    hot = pixels(browser.find(heat))
    middle = hot[hot.shape[0] // 2, hot.shape[1] // 2]
    assert middle[0] > 150  # the hottest spot is pale yellow, the photograph teal
    slide(browser, "opacity", 0)
    assert tinted(browser, heat) < 0.01
    assert tinted(browser, seed) < 0.01


def test_what_is_tuned_in_an_opened_picture_stays(browser):
    """Cards and numbers are those of the sliders, and the picture's place that of the sorting."""
    browser.load("#sort=best").run("document.querySelectorAll('.card')[0].click()")
    browser.opened("a10")
    assert browser.texts("#place") == ["1 of 4"]
    slide(browser, "threshold-lpcam", 0.6)
    slide(browser, "opacity", 0.4)
    assert browser.texts("#place") == ["3 of 4"]
    assert browser.find("#previous").is_enabled()
    browser.find("#close").click()
    browser.opened(None)
    browser.hash("#sort=best&opacity=0.4&threshold-lpcam=0.60")
    assert browser.texts("#tuning output") == ["40%", "0.10", "0.60"]
    assert browser.names().index("a10") == 2
    assert browser.texts(".iou")[2] == "IoU CAM 60%, LPCAM 20%"
    browser.driver.back()
    browser.driver.forward()
    browser.until("document.querySelectorAll('.iou')[2]?.textContent", "IoU CAM 60%, LPCAM 20%")


def test_a_picture_without_a_true_mask_says_so(browser):
    browser.load("#look=seed+and+ground+truth")
    captions = dict(zip(browser.names(), browser.texts(".frame:nth-child(2) .caption"), strict=True))
    assert (captions["b/c"], captions["a9"]) == ("no ground truth", "ground truth")


def test_layers_that_a_picture_has_no_more_are_removed(tmp_path):
    draw(tmp_path, ENTRIES[0])
    draw(tmp_path, ENTRIES[0]._replace(missing=("truth", "cam")))
    left = [pane.key for pane in PANES if layer_file(tmp_path, pane.key, "a10").exists()]
    assert left == ["lpcam", "seed_lpcam"]


def test_a_threshold_of_the_address_is_that_of_the_page(browser):
    browser.load("#threshold-lpcam=0.45&opacity=0.5")
    assert browser.texts("#tuning output") == ["50%", "0.10", "0.45"]
    assert browser.texts(".iou")[2] == "IoU CAM 60%, LPCAM 90%"
    browser.load("#threshold-lpcam=7&opacity=x")
    assert browser.texts("#tuning output") == ["70%", "0.10", "0.30"]


def test_small_pictures_show_what_is_chosen(browser):
    browser.load()
    assert browser.texts("li:first-child .caption") == ["CAM", "LPCAM"]
    browser.choose("#look", "seed and ground truth")
    assert browser.texts("li:first-child .caption") == ["seed of LPCAM", "ground truth"]
    browser.choose("#look", "photographs")
    assert browser.run("return document.querySelectorAll('.layer').length") == 0
    browser.hash("#look=photographs")


def test_a_class_of_several_is_chosen_by_click_and_key(browser):
    browser.load("#open=a9").opened("a9")
    maps = "document.querySelectorAll('figure:nth-child(2) .map img').length"
    browser.until(maps, 2)
    browser.find("#facts button:nth-child(2)").click()
    browser.until(maps, 1)
    assert browser.run("return document.querySelector('#panes .map img').style.top") == "-100%"
    browser.press("1")
    browser.until("document.querySelector('#panes .map img').style.top", "0%")
    browser.press("0")
    browser.until(maps, 2)


def test_fits_a_phone(browser):
    browser.driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 375, "height": 700, "deviceScaleFactor": 1, "mobile": True}
    )
    try:
        for hash in ("", "#open=a9"):
            browser.load(hash)
            assert browser.run("return document.documentElement.scrollWidth") <= 375
            assert browser.run("return document.querySelector('.view').clientWidth") > 100
    finally:
        browser.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.mark.parametrize("name", STRANGE)
def test_pictures_with_strange_names_are_found(browser, name):
    write_layers(browser.page.parent, name, [("photo", photo_layer(np.zeros((5, 7, 3), np.uint8)))], ())
    assert layer_file(browser.page.parent, "photo", name).is_file()
    written(browser.page.parent, [Entry(name, (7, 5), missing=tuple(pane.key for pane in PANES))])
    browser.load().until("document.images[0].naturalWidth", 7)
    assert not browser.find("#sort").is_displayed()
    assert not browser.find("#class").is_displayed()


def test_cards_come_as_one_scrolls(browser):
    written(browser.page.parent, many(10_000))
    count = "document.getElementById('grid').children.length"
    browser.load("#open=2012_009999").opened("2012_009999")
    assert browser.run(f"return {count}") < 500
    browser.driver.get_log("browser")  # there are no such pictures
    browser.load()
    before = browser.run(f"return {count}")
    browser.run("scrollTo(0, document.body.scrollHeight)")
    browser.until(f"{count} > {before}", True)
    browser.find("#search").send_keys("9999")
    assert browser.names() == ["2012_009999"]
    browser.driver.get_log("browser")


def test_empty_page_says_so(browser):
    written(browser.page.parent, [])
    assert browser.load().texts("#end") == ["There are no pictures."]
    assert not browser.find("#search").is_displayed()
