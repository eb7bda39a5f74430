"""The page of results: what the file says, and, where there is a browser to drive, what it does."""

import base64
import hashlib
import html
import io
import json
import os
import re
import time
from pathlib import Path
from urllib.parse import unquote

import pytest
from browsing import Browser
from PIL import Image

from lpcam_jax.errors import UserError
from lpcam_jax.report.gallery import Entry, write_gallery

HOSTILE = "</script><!--<script>alert(1)</script>&amp;\u2028{{data}}\"'"
STRANGE = ["a b", "50%", "%41", "#1", "what?", "\"quoted\" 'twice'", "猫 e\u0301", "back\\slash", "a:b", "&amp;", "x/y"]
ENTRIES = [
    Entry("a10", "overlays/a10.png", ("cat",), 0.9),
    Entry("a9", "overlays/a9.png", ("cat", "dog"), 0.25, "cat 93%"),
    Entry("b/c", "overlays/b/c.png", ("dog",), None),
    Entry(HOSTILE, "overlays/hostile.png", (HOSTILE,), 0.5, HOSTILE),
]
NAMES = {"a9", "a10", "b/c", HOSTILE}


def written(folder: Path, entries, **words) -> str:
    write_gallery(folder / "index.html", entries, **{"title": "Results", **words})
    return (folder / "index.html").read_text(encoding="utf-8")


def embedded(page: str) -> list[dict]:
    return json.loads(re.search('<script id="data" type="application/json">(.*?)</script>', page, re.DOTALL)[1])


def test_embedded_entries_are_the_given_ones(tmp_path):
    got = [Entry(**{**one, "classes": tuple(one["classes"])}) for one in embedded(written(tmp_path, ENTRIES))]
    assert got == ENTRIES


def test_names_cannot_leave_their_place(tmp_path):
    plain = written(tmp_path, [], title="x", summary=["x"])
    page = written(tmp_path, [Entry(HOSTILE, "x.png", (HOSTILE,), None, HOSTILE)], title=HOSTILE, summary=[HOSTILE])
    assert re.findall("<[^>]*>", page) == re.findall("<[^>]*>", plain)
    assert "\u2028" not in re.sub("<title>.*</title>|<h1.*</h1>|<p>.*</p>", "", page)
    assert f"<title>{html.escape(HOSTILE)}</title>" in page
    assert f"<p>{html.escape(HOSTILE)}</p>" in page


@pytest.mark.parametrize("name", STRANGE)
def test_paths_are_relative_urls(tmp_path, name):
    [entry] = embedded(written(tmp_path, [Entry(name, f"overlays/{name}.png", (), None)]))
    assert re.fullmatch("[A-Za-z0-9_.~/%-]+", entry["picture"])
    assert unquote(entry["picture"]) == f"overlays/{name}.png"


@pytest.mark.skipif(os.name == "nt", reason="file names are text there")
def test_names_may_be_no_text(tmp_path):
    page = written(tmp_path, [Entry("\udc80", "\udc80.png", ("\udc80",), None)], title="\udc80")
    assert embedded(page) == [{"id": "\udc80", "picture": "%80.png", "classes": ["\udc80"], "iou": None, "note": ""}]


def test_unknown_iou_is_null(tmp_path):
    assert embedded(written(tmp_path, [Entry("x", "x.png", (), float("nan"))]))[0]["iou"] is None


def test_policy_allows_this_style_and_script_only(tmp_path):
    page = written(tmp_path, ENTRIES)
    policy = re.search('"Content-Security-Policy" content="(.*?)"', page)[1]
    for tag in ("style", "script"):
        text = re.search(f"<{tag}>(.*?)</{tag}>", page, re.DOTALL)[1]
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}';" in policy
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    assert not re.search(r"https?:|//[a-z]+\.|url\(|@import|\bon\w+=|\sstyle=", page)


def test_empty_gallery(tmp_path):
    assert embedded(written(tmp_path, [])) == []


def many(count: int) -> list[Entry]:
    return [Entry(f"2012_{n:06}", f"overlays/2012_{n:06}.png", ("cat", "dog"), n / count, "0.5") for n in range(count)]


def test_ten_thousand_entries_are_fast_and_small(tmp_path):
    entries = many(10_000)
    start = time.perf_counter()
    page = written(tmp_path, entries)
    assert time.perf_counter() - start < 1
    assert len(page) < 2e6
    assert os.listdir(tmp_path) == ["index.html"]


def test_says_what_cannot_be_written(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UserError, match="cannot write"):
        write_gallery(tmp_path / "file" / "index.html", ENTRIES, title="x")


@pytest.fixture
def browser(driver, tmp_path):
    """The page of ENTRIES and their pictures; in the end the console must be empty."""
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30), "teal").save(buffer, "PNG")
    for entry in ENTRIES:
        file = tmp_path / entry.picture
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(buffer.getvalue())
    written(tmp_path, ENTRIES, title=HOSTILE, summary=["mIoU 62.5", HOSTILE])
    driver.get_log("browser")
    yield Browser(driver, tmp_path)
    assert driver.get_log("browser") == []


def test_page_shows_names_as_text(browser):
    browser.load()
    assert set(browser.names()) == NAMES
    assert HOSTILE in browser.texts(".chip")
    assert HOSTILE in browser.texts(".note")
    assert browser.texts("h1") == [HOSTILE]
    assert browser.texts("header p") == ["mIoU 62.5", HOSTILE]
    assert browser.run("return document.title") == HOSTILE
    assert browser.texts("#count") == ["4 pictures"]
    browser.until("[...document.images].filter((image) => image.src && !image.naturalWidth).length", 0)
    assert browser.run("return document.scripts.length") == 2


def test_sorts(browser):
    browser.load()
    assert browser.names().index("a9") < browser.names().index("a10")
    browser.choose("#sort", "IoU, worst first")
    assert browser.names() == ["a9", HOSTILE, "a10", "b/c"]
    browser.choose("#sort", "IoU, best first")
    assert browser.names() == ["a10", HOSTILE, "a9", "b/c"]
    browser.hash("#sort=best")


def test_filters_and_searches(browser):
    browser.load()
    browser.choose("#class", "cat (2)")
    assert browser.names() == ["a9", "a10"]
    assert browser.texts("#count") == ["2 of 4 pictures"]
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
    browser.until("document.getElementById('large').naturalWidth", 40)
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


@pytest.mark.parametrize("name", STRANGE)
def test_pictures_with_strange_names_are_found(browser, name):
    picture = browser.page.parent / "overlays" / f"{name}.png"
    picture.parent.mkdir(exist_ok=True)
    Image.new("RGB", (7, 5)).save(picture)
    written(browser.page.parent, [Entry(name, f"overlays/{name}.png", (), None)])
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
