"""What `import sklowrank` does and does not do."""

import importlib.metadata
import subprocess
import sys

import pytest

import sklowrank


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
