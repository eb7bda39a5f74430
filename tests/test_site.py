"""The documentation as a site: it is built without a warning, whole, and shows everything without a network."""

import inspect
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from filelock import FileLock

import lpcam_jax
from lpcam_jax.__main__ import COMMANDS
from lpcam_jax.config.recipes import recipes

REPOSITORY = Path(__file__).parents[1]
pytestmark = pytest.mark.rest


# Of an element, the attribute that makes a browser fetch something; links are followed by a person.
FETCHED = {"iframe": "src", "img": "src", "link": "href", "object": "data", "script": "src", "source": "src"}
HEADINGS = {"h1", "h2", "h3", "h4"}


class Page(HTMLParser):
    """What a page loads, where it leads, its headings and its ids.

    Args:
        text: its HTML.
    """

    def __init__(self, text: str):
        super().__init__()
        self.fetched, self.links, self.ids, self.headings, self._inside = [], [], set(), [], False
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.ids.add(attributes.get("id"))
        if found := attributes.get(FETCHED.get(tag)):
            self.fetched.append(found)
        if tag == "a" and "href" in attributes:
            self.links.append(attributes["href"])
        if tag in HEADINGS:
            self.headings.append("")
            self._inside = True

    def handle_endtag(self, tag):
        self._inside &= tag not in HEADINGS

    def handle_data(self, text):
        if self._inside:
            self.headings[-1] += text


@pytest.fixture(scope="module")
def site(shared) -> Path:
    """The site, built as `make docs` does; a warning ends it."""
    pytest.importorskip("sphinx", reason="builds the site: pip install -e '.[docs]'")
    out = shared / "site"
    with FileLock(shared / "site.lock"):  # one worker builds it, and the others wait
        if not (out / "index.html").exists():
            environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
            built = subprocess.run(
                [sys.executable, "docs/site", str(out)], cwd=REPOSITORY, env=environment, capture_output=True, text=True
            )
            assert (built.returncode, built.stderr) == (0, "")
            assert built.stdout == f"{out / 'index.html'} is ready.\n"
    return out


@pytest.fixture(scope="module")
def pages(site) -> dict[str, Page]:
    """All pages, by their paths."""
    return {path.relative_to(site).as_posix(): Page(path.read_text()) for path in site.rglob("*.html")}


def headings(page: Page) -> set[str]:
    return {heading.removesuffix("#") for heading in page.headings}


def test_nothing_is_fetched_from_elsewhere(site, pages):
    for name, page in pages.items():
        for target in page.fetched:
            path = site / Path(name).parent / target.partition("?")[0].partition("#")[0]
            assert target.startswith("data:") or path.exists(), f"{name} loads {target}"
    for style in site.rglob("*.css"):
        fetched = re.findall(r"""(?:@import|url\()\s*["']?([^"')\s]+)""", style.read_text())
        assert [target for target in fetched if not target.startswith("data:")] == [], style.name


def test_links_within_the_site_lead_to_a_page_and_a_heading(site, pages):
    broken = []
    for name, page in pages.items():
        for link in page.links:
            target, _, anchor = link.partition("#")
            if re.match(r"[a-z]+:", link):
                continue
            path = os.path.normpath(Path(name).parent / target) if target else name
            there = pages.get(path)
            if not (site / path).is_file() or (anchor and there and anchor not in there.ids):
                broken.append(f"{name}: {link}")
    assert broken == []


def test_every_page_is_in_the_navigation_of_the_first(pages):
    reached = {link.partition("#")[0] for link in pages["index.html"].links}
    written = {f"{path.stem}.html" for path in (REPOSITORY / "docs").glob("*.md")}
    outside = {"benchmarks/RESULTS.html", "benchmarks/SEEDS.html", "CHANGELOG.html"}
    assert written | outside | {"notebooks/lpcam_in_ten_cells.html"} <= reached
    assert set(pages) - reached - {"index.html", "genindex.html", "search.html"} == set()


def test_every_public_function_is_in_the_reference_with_what_it_takes(site, pages):
    shown = headings(pages["reference/functions.html"])
    assert set(lpcam_jax.__all__) <= shown
    assert {"FeatureSample.add", "spread", "mean_field", "pixel_adaptive", "random_walk"} <= shown
    assert {"TrainedModel.__call__", "TrainedModel.features", "NamedMaps", "TrainedSegmenter.__call__"} <= shown
    text = re.sub(r"<[^>]*>", "", (site / "reference" / "functions.html").read_text())
    for name in set(lpcam_jax.__all__) - {"UserError"}:  # which is caught, not called
        assert all(argument in text for argument in inspect.signature(getattr(lpcam_jax, name)).parameters), name


def test_every_command_and_every_recipe_is_in_the_reference(site, pages):
    assert set(COMMANDS) <= headings(pages["reference/commands.html"])
    text = (site / "reference" / "recipes.html").read_text()
    assert [name for name in recipes() if f"configs/{name}.py" not in text] == []
    assert "--prototypes.clusters" in text


def test_equations_are_drawn_without_a_script(site):
    text = (site / "method.html").read_text()
    assert text.count("<math") > 10
    assert "$" not in re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL)
