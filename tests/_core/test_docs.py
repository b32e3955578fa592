"""Shared paragraphs of docstrings: filled in at the indentation of their line, in classes and in their methods."""

import textwrap

from sklowrank._core.docs import documented

SIZE = """
    size : int
        Number of rows;
        at least 1.
"""


def documented_class(*, dedented):
    class Estimator:
        """Do something.

        Parameters
        ----------
        <size>
        shape : tuple
            Kept, with <size> in a line.
        """

        def fit(self):
            """Fit.

            <size>
            """

        def plain(self):
            """Stays."""

    if dedented:  # as Python 3.13 and newer compile docstrings
        Estimator.__doc__ = textwrap.dedent("        " + Estimator.__doc__)
        Estimator.fit.__doc__ = textwrap.dedent("            " + Estimator.fit.__doc__)
    return documented(size=SIZE)(Estimator)


def test_paragraphs_take_the_indentation_of_their_line():
    for dedented in (False, True):
        cls = documented_class(dedented=dedented)
        lines = textwrap.dedent("        " + cls.__doc__ if not dedented else cls.__doc__).splitlines()
        assert lines[4:8] == ["size : int", "    Number of rows;", "    at least 1.", "shape : tuple"]
        assert "Kept, with <size> in a line." in cls.__doc__
        method = textwrap.dedent("            " + cls.fit.__doc__ if not dedented else cls.fit.__doc__).splitlines()
        assert method[2:5] == ["size : int", "    Number of rows;", "    at least 1."]
        assert cls.plain.__doc__ == "Stays."


def test_names_with_spaces_and_text_behind():
    cls = type("Estimator", (), {"__doc__": "Move.\n\n    <the size> Or more.\n    <b : str>"})
    documented(**{"the size": SIZE})(cls)
    assert cls.__doc__.split("\n")[2:] == [
        "    size : int",
        "        Number of rows;",
        "        at least 1. Or more.",
        "    <b : str>",
    ]
