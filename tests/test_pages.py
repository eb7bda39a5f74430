"""The pages of a folder of heat maps as a person meets them: in a browser, opened from disk.

python -m pytest tests/test_pages.py --heatmaps heatmaps/ --screenshots screenshots/
"""

import io
from pathlib import Path

import numpy as np
import pytest
from browsing import Browser
from PIL import Image

pytestmark = pytest.mark.rest

LOADED = "[...document.images].filter((one) => one.complete && !one.naturalWidth).length"
MAP = "document.querySelector('.card .map img')"
PANES = "[...document.querySelectorAll('#panes img')].filter((one) => !one.naturalWidth).length"


@pytest.fixture
def browser(request, driver):
    """A folder's pages; in the end the console must be empty."""
    given = request.config.getoption("--heatmaps")
    folder = Path(given) if given else request.getfixturevalue("mapped")[0]
    driver.get_log("browser")
    yield Browser(driver, folder.resolve())
    assert driver.get_log("browser") == []


@pytest.fixture
def keep(request, driver):
    """`keep(name)` takes a picture of what the browser shows, where there is a folder for it."""

    def keep(name: str) -> None:
        if folder := request.config.getoption("--screenshots"):
            Path(folder).mkdir(parents=True, exist_ok=True)
            driver.save_screenshot(str(Path(folder, f"{name}.png")))

    return keep


def pixels(element) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(element.screenshot_as_png)).convert("RGB")).astype(int)


def test_the_gallery_can_be_used(browser, keep):
    browser.load()
    browser.choose("#sort", "disagreement of CAM and LPCAM")  # which needs no masks
    browser.until("document.images[0].naturalWidth > 0", True)
    browser.until(LOADED, 0)
    keep("gallery")


def test_the_threshold_changes_the_seeds_in_the_grid(browser, keep):
    browser.load("#look=seeds")
    browser.until("document.querySelector('.seed').naturalWidth > 0", True)
    browser.until("document.querySelector('.frame:last-child .seed').naturalWidth > 0", True)
    seed = browser.find(".card .frame:last-child .view")
    before = pixels(seed)
    browser.run(
        """const { input } = [...document.querySelectorAll("#tuning label")].find((one) => one.key.endsWith("-lpcam"));
        input.value = "0.9";
        for (const name of ["input", "change"]) input.dispatchEvent(new Event(name, { bubbles: true }));"""
    )
    keep("seeds")
    seed = browser.find(".card .frame:last-child .view")
    assert (abs(pixels(seed) - before).max(axis=-1) > 40).mean() > 0.01


def test_a_class_is_filtered_and_a_picture_opened_and_left(browser, keep):
    browser.load("#sort=best")
    option = browser.find("#class").find_elements("tag name", "option")[1].text
    browser.choose("#class", option)
    name, _, count = option.rpartition(" (")
    assert browser.texts("#count")[0].startswith(f"{count[:-1]} of ")
    assert all(
        name in texts
        for texts in browser.run("return [...document.querySelectorAll('#grid li')].map((one) => one.entry.classes)")
    )
    browser.find("#grid .card").click()
    browser.until(PANES, 0)
    assert len(browser.texts("figcaption")) >= 5
    keep("picture")
    first = browser.texts("#name")
    browser.press("j")
    [second] = browser.texts("#name")
    assert [second] != first
    browser.until("location.hash.includes(encodeURIComponent(document.getElementById('name').textContent))", True)
    browser.load(browser.run("return location.hash")).opened(second)


def test_the_page_of_prototypes_shows_patches_and_maps(browser, keep):
    browser.load("#sort=best").find("#links a").click()
    browser.until("document.title.endsWith('Prototypes')", True)
    browser.until("document.querySelectorAll('.patches img').length > 8", True)
    browser.until(LOADED, 0)
    browser.until("[...document.querySelectorAll('.card .map img')].slice(0, 2).every((one) => one.naturalWidth)", True)
    before, source = pixels(browser.find(".card .map")), browser.run(f"return {MAP}.src")
    browser.press("2")
    browser.until(f"{MAP}.src !== {source!r} && {MAP}.naturalWidth > 0", True)
    after = pixels(browser.find(".card .map"))
    assert before.shape != after.shape or (before != after).any()
    keep("prototypes")
