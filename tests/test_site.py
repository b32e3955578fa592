"""The site as built by `make doc`: pages render in a browser, links lead somewhere, pictures load."""

import functools
import http.server
import importlib
import json
import re
import shutil
import subprocess
import threading
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

SITE = Path(__file__).parent.parent / "doc" / "_build" / "html"
SCREEN = (1280, 900)
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PAGES = [p for p in sorted(q.relative_to(SITE).as_posix() for q in SITE.rglob("*.html")) if not p.startswith("_")]
SHOWN = [
    page
    for page in PAGES
    if "/" not in page or re.match(r"methods/|guide/|gallery/(index|\w+/plot_)|api/sklowrank\.impute", page)
]

built = pytest.mark.skipif(not PAGES, reason="the site is not built: run `make doc`")


class Page(HTMLParser):
    """Collects the targets of links and pictures of a page, and the anchors that it has."""

    def __init__(self, path):
        super().__init__()
        self.links, self.anchors = [], set()
        self.feed(path.read_text())

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.anchors |= {attributes.get("id"), attributes.get("name")} - {None}
        target = attributes.get({"a": "href", "link": "href", "img": "src", "script": "src"}.get(tag, ""))
        if target:
            self.links.append(target)


@functools.cache
def parsed(page):
    return Page(SITE / page)


@built
def test_links_within_the_site_lead_somewhere():
    broken = []
    for page in PAGES:
        for link in parsed(page).links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (SITE / page).parent / unquote(parts.path) if parts.path else SITE / page
            target = target / "index.html" if target.is_dir() else target
            if not target.exists():
                broken.append((page, link))
            elif parts.fragment and target.suffix == ".html":
                there = parsed(target.resolve().relative_to(SITE.resolve()).as_posix())
                if unquote(parts.fragment) not in there.anchors:
                    broken.append((page, link))
    assert not broken


LOOK = b"""<script>
addEventListener("load", () => setTimeout(() => {
  const pictures = [...document.images].filter(i => i.complete && !i.naturalWidth).map(i => i.src);
  const report = {title: document.title, heading: !!document.querySelector("h1"), pictures: pictures,
                  height: document.querySelector("main, article, body").scrollHeight, errors: window.wrong || [],
                  width: document.documentElement.scrollWidth};
  document.documentElement.innerHTML = "<pre id=report>" + JSON.stringify(report) + "</pre>";
}, 300));
</script></body>"""
LISTEN = b"""<head><script>
window.wrong = []; addEventListener("error", event => window.wrong.push(event.message || "not loaded"), true);
</script>"""


class Watched(http.server.SimpleHTTPRequestHandler):
    """Serves the site, with a script in each page that replaces it by a report of what a browser saw."""

    def do_GET(self):
        path = SITE / unquote(urlsplit(self.path).path).lstrip("/")
        if path.suffix != ".html":
            super().do_GET()
            return
        body = path.read_bytes().replace(b"<head>", LISTEN, 1).replace(b"</body>", LOOK, 1)
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def address():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Watched, directory=SITE))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@built
@pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")
@pytest.mark.parametrize("page", SHOWN)
def test_pages_render_in_a_browser(page, address, tmp_path):
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    options += ["--disable-component-update", "--disable-sync", "--disable-quic", f"--user-data-dir={tmp_path}"]
    options += [f"--window-size={SCREEN[0]},{SCREEN[1]}", "--hide-scrollbars"]
    options += ["--virtual-time-budget=10000", "--dump-dom", f"{address}/{page}"]
    seen = subprocess.run([BROWSER, *options], capture_output=True, text=True, timeout=120, check=True).stdout
    report = json.loads(re.search(r'<pre id="report">(.*?)</pre>', seen, re.DOTALL)[1].replace("&amp;", "&"))
    assert "sklowrank" in report["title"]
    assert report["heading"] or page in ("genindex.html", "search.html")
    assert report["height"] > 200
    assert report["width"] <= SCREEN[0]  # what is wider scrolls on its own
    if page.startswith("methods/"):
        assert report["height"] <= 8 * SCREEN[1]
    assert not report["pictures"]
    assert not report["errors"]


@built
def test_search_finds_the_terms_of_the_field():
    index = (SITE / "searchindex.js").read_text()
    titles = json.loads(index[len("Search.setIndex(") : index.rindex(")")])["alltitles"]
    assert {"Missing values", "Outlier detection", "Why is there no n_jobs?", "Recommendation"} <= set(titles)


@built
@pytest.mark.parametrize("name", ["impute.MatrixCompletionImputer", "mixture.LowRankGaussianMixture"])
def test_classes_show_import_methods_and_source(name):
    page = f"api/sklowrank.{name}.html"
    text = re.sub(r"<[^>]+>", "", (SITE / page).read_text())
    package, _, short = name.rpartition(".")
    assert f"from sklowrank.{package} import {short}" in text
    assert any(link.startswith(f"../_modules/sklowrank/{package}/") for link in parsed(page).links)
    on_page = [link for link in parsed(page).links if link.startswith("#")]
    for method in ("fit", "transform"):  # in the list of methods, and on this page
        assert on_page.count(f"#sklowrank.{name}.{method}") >= 3


@pytest.fixture
def site_tools(monkeypatch):
    pytest.importorskip("sphinx")
    monkeypatch.syspath_prepend(Path(__file__).parent.parent / "doc" / "_ext")
    return importlib.import_module("site_tools")


@pytest.fixture
def to_mathml(site_tools):
    return site_tools.to_mathml


def test_links_to_the_repository_are_those_of_the_project(site_tools, tmp_path):
    pyproject = tmp_path / "pyproject.toml"
    pyproject.write_text('[project]\nname = "x"\n')
    assert site_tools.project_links(pyproject) == ({"icon_links": []}, {})
    pyproject.write_text(
        '[project.urls]\nSource = "https://github.com/some/thing"\nIssues = "https://github.com/some/thing/issues"\n'
    )
    theme, context = site_tools.project_links(pyproject)
    assert theme["use_edit_page_button"]
    assert [link["name"] for link in theme["icon_links"]] == ["Repository", "Issues"]
    assert (context["github_user"], context["github_repo"], context["doc_path"]) == ("some", "thing", "doc")


def test_formulas_are_set_as_tex_sets_them(to_mathml):
    def tags(tex):
        return re.sub(r"\s+", "", to_mathml(tex, as_block=False))

    assert "<mn>1</mn><mn>2</mn></mfrac>" in tags(r"\tfrac12")  # a half, not twelve over what follows
    assert tags(r"\|x\|").count('lspace="0"rspace="0">‖<') == 2
    assert tags(r"\lvert x \rvert").count('lspace="0"rspace="0">|<') == 2
    assert "lspace" not in tags(r"x \mid y")
    assert tags(r"n \log n").count("<mspace") == 2
    assert tags(r"\log(n)").count("<mspace") == 0
