"""Print the oldest versions that pyproject.toml allows, as constraints of pip: ``python .ci/oldest.py > FILE``."""

import re
import tomllib
from pathlib import Path

project = tomllib.loads(Path(__file__).resolve().parent.parent.joinpath("pyproject.toml").read_text())["project"]
for dependency in project["dependencies"]:
    name, floor = re.fullmatch(r"([\w.-]+)>=([\w.]+)(?:,.*)?", dependency).groups()
    print(f"{name}=={floor}" if floor.count(".") > 1 else f"{name}=={floor}.0")
