"""Formulas as MathML and links to scikit-learn, both without network; docstrings taken as they are meant."""

import re
from importlib import import_module

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sklearn.experimental import enable_iterative_imputer  # noqa: F401  (until it is imported, the class is hidden)
from sphinx.util import logging

logger = logging.getLogger(__name__)


def _write(translator, node, as_block):
    try:
        formula = tex2mathml(node.astext(), as_block=as_block)
        # The converter marks | as what must not stretch, but not its double, the bar of norms.
        translator.body.append(formula.replace("<mo>‖</mo>", '<mo stretchy="false">‖</mo>'))
    except MathError as error:
        logger.warning("formula not understood: %s", error, location=node)
    raise nodes.SkipNode


def _inline(translator, node):
    _write(translator, node, as_block=False)


def _block(translator, node):
    _write(translator, node, as_block=True)


def link_scikit_learn(app, env, node, contnode):
    """Point a reference to a public name of scikit-learn at its page."""
    target = node.get("reftarget", "")
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


def setup(app):
    app.add_html_math_renderer("mathml", inline_renderers=(_inline, None), block_renderers=(_block, None))
    app.connect("missing-reference", link_scikit_learn)
    app.connect("autodoc-process-docstring", escape, priority=600)  # after numpydoc
    return {"parallel_read_safe": True, "parallel_write_safe": True}
