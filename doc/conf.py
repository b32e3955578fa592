"""Sphinx's settings. The site builds, and reads, without network."""

import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy and torch: the examples run in this process
sys.path.insert(0, str(Path(__file__).parent / "_ext"))

import matplotlib

import sklowrank

matplotlib.use("agg")

project = "sklowrank"
author = "the sklowrank developers"
copyright = f"2026, {author}"
version = release = sklowrank.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "numpydoc",
    "myst_parser",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
    "site_tools",
]
root_doc = "index"
exclude_patterns = ["_build", "benchmarks", "sg_execution_times.rst", "gallery/sg_execution_times.rst"]
templates_path = ["_templates"]
default_role = "literal"
highlight_language = "none"

autosummary_generate = True
autodoc_typehints = "none"
autodoc_member_order = "bysource"
add_module_names = False
toc_object_entries = False
numpydoc_show_class_members = False

myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence", "deflist"]
myst_heading_anchors = 3

html_theme = "pydata_sphinx_theme"
html_title = f"sklowrank {version}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_math_renderer = "mathml"
html_show_sourcelink = False
html_copy_source = False
alone = ("index", "choose", "scale", "measure", "quality", "privacy", "persistence", "extending", "changelog")
html_sidebars = {page: [] for page in (*alone, "contributing")}
html_theme_options = {
    "logo": {"text": "sklowrank"},
    "header_links_before_dropdown": 5,
    "navbar_end": ["theme-switcher"],
    "show_prev_next": False,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
}

# Examples of data that are not bundled are left out where the data are missing.
left_out = "quickstart|principal_axes|__init__" + ("" if "SKLOWRANK_DATA" in os.environ else "|plot_spam_topics")

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "gallery",
    "filename_pattern": "plot_",
    "ignore_pattern": rf"({left_out})\.py",
    "within_subsection_order": "site_tools.ByMethod",
    "backreferences_dir": "gallery/backreferences",
    "doc_module": ("sklowrank",),
    "reference_url": {"sklowrank": None},
    "remove_config_comments": True,
    "download_all_examples": False,
    "show_signature": False,
    "plot_gallery": True,
    "abort_on_example_error": True,
}
