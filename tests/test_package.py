"""What `import sklowrank` does and does not do, and that CONTRIBUTING knows where things live."""

import importlib.metadata
import pkgutil
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import sklowrank

ROOT = Path(__file__).parent.parent


def test_import_loads_neither_torch_nor_scikit_learn():
    code = "import sys, sklowrank; print(sorted({'torch', 'sklearn', 'numpy', 'scipy', 'skorch'} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"


def test_sub_packages_load_when_asked_for():
    assert sklowrank.impute.MatrixCompletionImputer.__name__ == "MatrixCompletionImputer"
    assert "recommend" in dir(sklowrank)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        sklowrank.nothing  # noqa: B018


def test_version_is_that_of_the_distribution():
    assert sklowrank.__version__ == importlib.metadata.version("sklowrank")


def test_help_has_a_line_for_each_sub_package():
    public = {module.name for module in pkgutil.iter_modules(sklowrank.__path__) if not module.name.startswith("_")}
    assert public == set(sklowrank.__all__) - {"__version__"}
    for name in public:
        lines = [line for line in sklowrank.__doc__.splitlines() if line.startswith(f"{name} ")]
        assert len(lines) == 1, name


def test_the_map_of_files_is_complete():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    shared = [
        path.name for floor in ("_core", "_math") for path in Path(sklowrank.__path__[0], floor).glob("[a-z]*.py")
    ]
    assert len(shared) > 15
    assert not [name for name in shared if f"    {name} " not in text]


def test_recipe_and_citation_say_what_pyproject_says():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    recipe = (ROOT / "packaging" / "conda" / "recipe.yaml").read_text()
    run = re.search(r"\n  run:\n(.*?)\n\n", recipe, re.DOTALL)[1].replace("${{ python_min }}", "3.11")
    stated = {line.removeprefix("- ").replace(" ", "") for line in map(str.strip, run.splitlines())}
    assert stated == {
        f"python{project['requires-python']}",
        *(d.replace("torch", "pytorch") for d in project["dependencies"]),
    }
    assert f'version: "{sklowrank.__version__}"' in recipe
    assert f"\nversion: {sklowrank.__version__}\n" in (ROOT / "CITATION.cff").read_text()
    assert project["urls"]["Source"] in recipe


def test_the_table_of_dependencies_has_their_floors():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    table = dict(re.findall(r"^\| ([\w-]+) \| ([\d.]+) \|", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE))
    assert {f"{name}>={floor}" for name, floor in table.items() if name != "Python"} == set(project["dependencies"])
    assert f">={table['Python']}" == project["requires-python"]
