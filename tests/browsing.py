"""A page in a real browser, driven as a person would."""

import time
from pathlib import Path


class Browser:
    """A page in headless Chromium, driven as a person would."""

    def __init__(self, driver, folder: Path):
        self.driver, self.page = driver, folder / "index.html"

    def load(self, hash: str = ""):
        self.driver.get("about:blank")
        self.driver.get(self.page.as_uri() + hash)
        return self

    def run(self, script: str):
        return self.driver.execute_script(script)

    def texts(self, selector: str) -> list[str]:
        return self.run(f"return [...document.querySelectorAll({selector!r})].map((one) => one.textContent)")

    def names(self) -> list[str]:
        return self.texts("#grid .name")

    def find(self, selector: str):
        return self.driver.find_element("css selector", selector)

    def choose(self, selector: str, text: str):
        for option in self.find(selector).find_elements("tag name", "option"):
            if option.text == text:
                return option.click()
        raise AssertionError(f"{selector} has no {text!r}")

    def press(self, *keys: str):
        from selenium.webdriver.common.action_chains import ActionChains

        ActionChains(self.driver).send_keys(*keys).perform()

    def until(self, script: str, wanted):
        end = time.monotonic() + 60  # of a page that should show it at once
        while time.monotonic() < end:
            if (got := self.run(f"return {script}")) == wanted:
                return
            time.sleep(0.05)
        raise AssertionError(f"{script} is {got!r}, not {wanted!r}")

    def opened(self, name: str | None):
        self.until("dialog.open ? document.getElementById('name').textContent : null", name)

    def hash(self, wanted: str):
        self.until("location.hash", wanted)
