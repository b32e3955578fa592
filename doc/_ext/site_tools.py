"""Formulas as MathML, links to scikit-learn without network, escaped docstrings, links to the repository."""

import re
import tomllib
from importlib import import_module

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sklearn.experimental import enable_iterative_imputer  # noqa: F401  (until it is imported, the class is hidden)
from sphinx.util import logging

logger = logging.getLogger(__name__)


APPLY, SPACE = "<mo>&ApplyFunction;</mo>", '<mspace width="0.17em"></mspace>'
OPENING = r"<mo[^>]*>[(\[{]</mo>"
FOLLOWED = r"</m(?:i|n|sub|sup|subsup|frac)>"


def to_mathml(tex, as_block):
    """Return TeX as MathML, set as TeX would set it; the converter falls short in four places."""
    tex = re.sub(r"(frac)(\d)(\d)", r"\1{\2}{\3}", tex)  # of \frac12 it reads the two digits as a number, twelve
    formula = tex2mathml(tex, as_block=as_block)
    # Bars are fences here, neither stretched nor set apart: what is conditional is written with \mid.
    formula = re.sub(
        r'<mo(?: stretchy="false"| class="\w+")?>([|‖])</mo>',
        r'<mo stretchy="false" lspace="0" rspace="0">\1</mo>',
        formula,
    )
    # A thin space before a function's name and after it, unless brackets follow.
    formula = re.sub(rf"{APPLY}(?!\s*{OPENING})", APPLY + SPACE, formula)
    return re.sub(rf"({FOLLOWED}\s*)(<mi(?: [^>]*)?>\w+</mi>\s*{APPLY})", rf"\1{SPACE}\2", formula)


def _write(translator, node, as_block):
    try:
        translator.body.append(to_mathml(node.astext(), as_block))
    except MathError as error:
        logger.warning("formula not understood: %s", error, location=node)
    raise nodes.SkipNode


def _inline(translator, node):
    _write(translator, node, as_block=False)


def _block(translator, node):
    _write(translator, node, as_block=True)


SCORES = ("accuracy_score", "r2_score")  # sections of scikit-learn's guide that its inherited docstrings refer to


def link_scikit_learn(app, env, node, contnode):
    """Point a reference to a public name of scikit-learn at its page."""
    target = node.get("reftarget", "")
    if node.get("reftype") == "ref" and target in SCORES:
        uri = f"https://scikit-learn.org/stable/modules/model_evaluation.html#{target.replace('_', '-')}"
        return nodes.reference("", "", contnode, internal=False, refuri=uri)
    module, _, name = target.rpartition(".")
    if not target.startswith("sklearn.") or not name:
        return None
    if not hasattr(import_module(module), name):
        logger.warning("scikit-learn has no %s", target, location=node)
        return None
    uri = f"https://scikit-learn.org/stable/modules/generated/{target}.html"
    return nodes.reference("", "", contnode, internal=False, refuri=uri)


def escape(app, what, name, obj, options, lines):
    """In "shape (n_features_in_,)" the underscore is no link, and in ".. [1] A. Author" the initial is no list."""
    for i, line in enumerate(lines):
        line = re.sub(r"shape \([^)]*\)", lambda m: re.sub(r"_(?!\w)", r"\\_", m[0]), line)
        lines[i] = re.sub(r"^(\.\. \[[^]]*\] \w)\. ", r"\1\\. ", line)


def name_benchmarks(app, docname, source):
    """Tell the page of a benchmark from the page of the method, which has the same title."""
    if docname.startswith("benchmarks/") and source[0].startswith("# ") and "Measured on" in source[0]:
        source[0] = source[0].replace("# ", "# Benchmark: ", 1)


def project_links(pyproject):
    """Return the settings of the theme that depend on the address of the repository, none where none is named.

    With a repository on GitHub each page has an edit link, and the header a link to the repository; with the address of
    the issue tracker the header has one to it.
    """
    urls = {name.lower(): url for name, url in tomllib.loads(pyproject.read_text())["project"].get("urls", {}).items()}
    repository = next((urls[name] for name in ("repository", "source", "source code") if name in urls), "")
    issues = next((urls[name] for name in ("issues", "bug tracker", "tracker") if name in urls), "")
    named = {"Repository": (repository, "fa-brands fa-github"), "Issues": (issues, "fa-solid fa-circle-exclamation")}
    theme = {"icon_links": [{"name": n, "url": url, "icon": icon} for n, (url, icon) in named.items() if url]}
    context = {}
    place = re.fullmatch(r"https://github\.com/([^/]+)/([^/]+?)(?:\.git)?/?", repository)
    if place:
        theme["use_edit_page_button"] = True
        context = {"github_user": place[1], "github_repo": place[2], "github_version": "main", "doc_path": "doc"}
    return theme, context


def setup(app):
    app.add_html_math_renderer("mathml", inline_renderers=(_inline, None), block_renderers=(_block, None))
    app.connect("source-read", name_benchmarks)
    app.connect("missing-reference", link_scikit_learn)
    app.connect("autodoc-process-docstring", escape, priority=600)  # after numpydoc
    return {"parallel_read_safe": True, "parallel_write_safe": True}
