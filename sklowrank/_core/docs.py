"""Paragraphs of docstrings that several estimators share."""

import re
import textwrap
from collections.abc import Callable


def documented(**paragraphs: str) -> Callable[[type], type]:
    """Return a decorator that fills in the docstrings of a class and of its own methods.

    ``<name>`` at the start of a line becomes the paragraph of that name, at the indentation of the line: since Python
    3.13 the compiler removes that of docstrings, so that paragraphs cannot bring their own. Names may have spaces.
    """

    def fill(cls):
        for target in (cls, *vars(cls).values()):
            text = target.__doc__ if target is cls or callable(target) else None
            if text and "<" in text:
                target.__doc__ = _filled(text, paragraphs)
        return cls

    return fill


def _filled(text: str, paragraphs: dict[str, str]) -> str:
    lines = []
    for line in text.split("\n"):
        place = re.fullmatch(r"( *)<([\w ]+)>(.*)", line)
        if place and place[2] in paragraphs:
            line = textwrap.indent(textwrap.dedent(paragraphs[place[2]]).strip(), place[1]) + place[3]
        lines.append(line)
    return "\n".join(lines)
