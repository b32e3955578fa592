"""Sphinx's settings. The site builds, and reads, without network."""

import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy and torch: the examples run in this process
sys.path.insert(0, str(Path(__file__).parent / "_ext"))

import matplotlib
from site_tools import project_links
from sklearn.base import BaseEstimator
from torch.optim import Optimizer

import sklowrank
from sklowrank._nets.training import Rule
from sklowrank.optim import MFAC

matplotlib.use("agg")

project = "sklowrank"
author = "the sklowrank developers"
copyright = f"2026, {author}"
version = release = sklowrank.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "sphinx.ext.viewcode",
    "numpydoc",
    "myst_parser",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
    "site_tools",
]
root_doc = "index"
exclude_patterns = ["_build", "sg_execution_times.rst", "gallery/sg_execution_times.rst"]
templates_path = ["_templates"]
default_role = "literal"
highlight_language = "none"

autosummary_generate = True
autodoc_typehints = "none"
autodoc_member_order = "bysource"
requests = ["fit", "partial_fit", "score", "transform", "decision_function"]
requests += ["predict", "predict_log_proba", "predict_proba"]
# What the training calls of a rule, and what an optimizer has from torch's.
of_others = {name for name in dir(Rule) if not hasattr(BaseEstimator, name)} | (set(dir(Optimizer)) - set(vars(MFAC)))
autosummary_context = {
    "unlisted_methods": [
        "get_metadata_routing",
        "set_output",
        *(f"set_{method}_request" for method in requests),
        *sorted(name for name in of_others if not name.startswith("_")),
    ]
}
toc_object_entries_show_parents = "hide"
numpydoc_show_class_members = False

# Inventories of other projects are kept here, as text: the names that pages refer to. Links lead to the sites.
intersphinx_mapping = {
    "python": ("https://docs.python.org/3/", "_inventories/python.inv"),
    "numpy": ("https://numpy.org/doc/stable/", "_inventories/numpy.inv"),
    "pandas": ("https://pandas.pydata.org/docs/", "_inventories/pandas.inv"),
    "torch": ("https://docs.pytorch.org/docs/stable/", "_inventories/torch.inv"),
}

copybutton_prompt_text = r">>> |\.\.\. "
copybutton_prompt_is_regexp = True

myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence", "deflist"]
myst_heading_anchors = 3

html_theme = "pydata_sphinx_theme"
html_title = f"sklowrank {version}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_math_renderer = "mathml"
html_show_sourcelink = False
html_copy_source = False
alone = ("index", "install", "faq", "glossary", "citation", "extending", "contributing", "changelog")
html_sidebars = {page: [] for page in alone}
theme, html_context = project_links(Path(__file__).parent.parent / "pyproject.toml")
html_theme_options = {
    "logo": {"text": f"sklowrank {version}"},
    "header_links_before_dropdown": 6,
    "navbar_end": ["theme-switcher", "navbar-icon-links"],
    "show_prev_next": True,
    "show_toc_level": 2,
    "secondary_sidebar_items": ["page-toc", "edit-this-page"] if "use_edit_page_button" in theme else ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
} | theme

# Examples of data that are not bundled are left out where the data are missing.
left_out = "quickstart|principal_axes|stream_server|__init__" + (
    "" if "SKLOWRANK_DATA" in os.environ else "|plot_supervised_dictionary_spam_topics"
)

packages = ("impute", "recommend", "cluster", "mixture", "decomposition", "multiclass")
packages += ("dimension_reduction", "manifold", "tensor", "topology", "transport", "metric_learning")
packages += ("neural", "compress", "adapt", "inspection", "privacy")

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "gallery",
    "filename_pattern": "plot_",
    "ignore_pattern": rf"({left_out})\.py",
    "subsection_order": [f"../examples/{package}" for package in packages],
    "within_subsection_order": "FileNameSortKey",
    "backreferences_dir": "gallery/backreferences",
    "doc_module": ("sklowrank",),
    "reference_url": {"sklowrank": None},
    "remove_config_comments": True,
    "download_all_examples": False,
    "show_signature": False,
    "plot_gallery": True,
    "abort_on_example_error": True,
}
