"""demo-app: the page, as a person uses it in a browser. It is skipped, and says so, without Gradio."""

import io
import shutil
import signal
from urllib.request import urlopen

import numpy as np
import pytest
from PIL import Image
from test_commands import assert_one_line_error, picture

import lpcam_jax as lp

SECONDS = 300  # after which something hangs


@pytest.fixture
def page(start_program, driver):
    """`page(run)`: the page of a run is open."""
    pytest.importorskip("gradio", reason="the page of demo-app: pip install '.[app]'")

    def open_page(run, **environment):
        process = start_program("-m", "lpcam_jax", "demo-app", "--ckpt", run, "--port", 0, **environment)
        line = process.stdout.readline()
        assert "shows the page" in line, process.communicate()
        address = line.split()[0]
        assert address.startswith("http://127.0.0.1:")  # for this machine alone
        driver.get(address)
        return process

    return open_page


@pytest.fixture
def shown(driver):
    """`shown(selector, count)`: the elements, as soon as there are so many."""
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    def wait(selector, count=1):
        def enough(driver):
            found = driver.find_elements(By.CSS_SELECTOR, selector)
            return found if len(found) >= count else None

        return WebDriverWait(driver, SECONDS).until(enough)

    return wait


def press(driver, name):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    def named(driver):
        return [one for one in driver.find_elements(By.TAG_NAME, "button") if one.text.strip() == name]

    [button] = WebDriverWait(driver, SECONDS).until(named)
    button.click()


def downloaded(links, name) -> bytes:
    [address] = [link.get_attribute("href") for link in links if link.get_attribute("href").endswith(name)]
    with urlopen(address) as answer:
        return answer.read()


@pytest.fixture
def shown_text(driver):
    """`shown_text(text)`: the page has shown it, or hangs."""
    from selenium.webdriver.support.ui import WebDriverWait

    def wait(text):
        WebDriverWait(driver, SECONDS).until(
            lambda driver: text in driver.execute_script("return document.body.innerText")
        )

    return wait


def test_a_picture_is_mapped_and_cut_anew(page, shown, shown_text, driver, trained, tmp_path):
    picture(tmp_path / "mine.png", size=(70, 50))
    page(trained)
    [upload, *_] = shown("input[type=file]")
    press(driver, "Map")  # too early
    shown_text("no picture yet")

    upload.send_keys(str(tmp_path / "mine.png"))
    shown("img[src*='mine']")
    press(driver, "Map")
    links = shown("a[href$='.npz'], a[href$='mask.png']", 2)
    expected = lp.load(trained)(tmp_path / "mine.png")
    with np.load(io.BytesIO(downloaded(links, "maps.npz"))) as file:
        assert file["names"].tolist() == list(expected.names)
        for method, stack in expected.maps.items():
            np.testing.assert_array_equal(file[method], np.moveaxis(stack, -1, 0).astype(np.float16))
    seed = np.asarray(Image.open(io.BytesIO(downloaded(links, "mask.png"))))
    best = expected.maps["lpcam"]
    cut = np.where(best.max(axis=-1) > 0.3, expected.classes[best.argmax(axis=-1)] + 1, 0)
    np.testing.assert_array_equal(seed, cut)
    assert len(shown(".grid-container img, .gallery-item img, button.thumbnail-item img")) >= len(expected.maps)

    hosts = driver.execute_script("return performance.getEntriesByType('resource').map(one => new URL(one.name).host)")
    assert {host for host in hosts if host} == {driver.current_url.split("/")[2]}


@pytest.fixture
def mapped_by_the_page(shown, driver):
    """`mapped_by_the_page(picture)`: the arrays of its maps."""

    def map_one(path):
        [upload, *_] = shown("input[type=file]")
        upload.send_keys(str(path))
        shown(f"img[src*='{path.stem}']")
        press(driver, "Map")
        links = shown("a[href$='.npz'], a[href$='mask.png']", 2)
        with np.load(io.BytesIO(downloaded(links, "maps.npz"))) as file:
            return {name: file[name] for name in file.files}

    return map_one


def test_unusual_pictures_are_mapped_as_infer_maps_them(page, mapped_by_the_page, driver, trained, tmp_path):
    """With transparent parts, of 16 bits, and in CMYK; whatever the patches of the prototypes are."""
    run, (width, height) = shutil.copytree(trained, tmp_path / "run"), (70, 50)
    for strip in (run / "prototypes").iterdir():
        strip.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (height, width, 4), np.uint8), "RGBA").save(tmp_path / "through.png")
    Image.fromarray(rng.integers(0, 1 << 16, (height, width), np.uint16)).save(tmp_path / "deep.png")
    picture(tmp_path / "printed.jpg", size=(width, height), mode="CMYK")
    model = lp.load(trained)
    page(run)
    for name in ("through.png", "deep.png", "printed.jpg"):
        found, expected = mapped_by_the_page(tmp_path / name), model(tmp_path / name)
        for method, stack in expected.maps.items():
            np.testing.assert_array_equal(found[method], np.moveaxis(stack, -1, 0).astype(np.float16), name)
        driver.refresh()


def test_nothing_is_left_among_temporary_files(page, mapped_by_the_page, trained, tmp_path):
    """While the page is open, all is where Gradio looks for what is old."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    picture(tmp_path / "mine.png", size=(70, 50))
    process = page(trained, TMPDIR=str(folder))
    mapped_by_the_page(tmp_path / "mine.png")
    assert {path.name for path in folder.iterdir()} == {"gradio"}
    process.send_signal(signal.SIGINT)
    assert process.wait(SECONDS) == 0
    assert not [path for path in folder.rglob("*") if path.is_file()]


def test_what_cannot_be_shown_is_one_line(program, irn_trained, trained):
    pytest.importorskip("gradio")
    app = ("lpcam_jax.__main__", "demo-app", "--ckpt")
    assert_one_line_error(program(*app, irn_trained), "of kind irn, which is not loaded")
    assert_one_line_error(program(*app, trained, "--port", 70000), "--port 70000: give one in 0..65535")
    assert_one_line_error(program(*app, trained, "--host", "192.0.2.1"), r"--host 192.0.2.1 --port 7860: .*; choose")
