"""Settings that must stand before scipy is imported, and what is skipped where."""

import os
import re

os.environ["SCIPY_ARRAY_API"] = "1"  # else scikit-learn leaves out its array-API checks without a word

import numpy as np
import pytest
import torch

collect_ignore = ["typed"]  # read by a type checker, not run


def pytest_collection_modifyitems(items):
    """Skip the tests marked `cuda` where torch sees no GPU, and checks of scikit-learn that would use one.

    Scikit-learn 1.9.0 runs those wherever PyTorch is a CUDA build.
    """
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("cuda") or re.search(r"-check_array_api.*cuda", item.name):
                item.add_marker(pytest.mark.skip(reason="torch sees no CUDA device"))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """Seed the global generators, so that modules and data made without a seed do not depend on the tests before."""
    np.random.seed(0)
    torch.manual_seed(0)
