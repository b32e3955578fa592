"""Paragraphs that docstrings share."""

import inspect

import pytest

from sklowrank._core.docs import documented

PARAGRAPH = """
    speed : float
        In metres per second,
        at least 0.
"""


@pytest.mark.parametrize("indent", ["", "    "], ids=["Python 3.13", "Python 3.11"])
def test_paragraphs_take_the_indentation_of_their_place(indent):
    """Compilers leave docstrings indented, or do not."""
    lines = ["Move.", "", "Parameters", "----------", "<the speed> Or more.", "<b : str>"]
    text = ("\n" + indent).join(lines)
    filled = documented(**{"the speed": PARAGRAPH})(type("Moving", (), {"__doc__": text}))
    assert inspect.getdoc(filled).split("\n")[4:] == [
        "speed : float",
        "    In metres per second,",
        "    at least 0. Or more.",
        "<b : str>",
    ]
