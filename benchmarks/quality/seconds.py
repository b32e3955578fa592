"""Seconds of processor time of tests, by estimator: ``python -m benchmarks.quality.seconds [ARGUMENTS OF PYTEST]``.

Without arguments the common tests are run. Tests that name no estimator are added up by file. Processor time hardly
depends on what else the machine is doing.
"""

import os

os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"))

import re
import sys
import time
from collections import defaultdict

import pytest

from tests.estimators import ESTIMATORS

_NAME = re.compile("|".join(rf"\b{name}\b" for name in sorted(ESTIMATORS, key=len, reverse=True)))


class Watch:
    """A plugin of pytest that adds up the processor time of tests, processes that they start included."""

    def __init__(self):
        self.seconds, self.tests = defaultdict(float), defaultdict(int)
        self.slowest: list[tuple[float, str]] = []

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item):
        """Measure one test, with its fixtures."""
        start = _processor_time()
        try:
            return (yield)
        finally:
            seconds, found = _processor_time() - start, _NAME.search(item.nodeid)
            name = found[0] if found else item.nodeid.partition("::")[0]
            self.seconds[name] += seconds
            self.tests[name] += 1
            self.slowest.append((seconds, item.nodeid))


def _processor_time():
    """Return the seconds of this process and of those of its children that have ended."""
    spent = os.times()
    return time.process_time() + spent.children_user + spent.children_system


def main(arguments):
    """Run tests and print their seconds by estimator, and the slowest ten."""
    watch = Watch()
    code = pytest.main(["-q", "-p", "no:randomly", *(arguments or ["tests/test_common.py"])], plugins=[watch])
    print(f"\n{'estimator or file':44} {'tests':>6} {'seconds':>8}")
    for name in sorted(watch.seconds, key=lambda name: -watch.seconds[name]):
        print(f"{name:44} {watch.tests[name]:6} {watch.seconds[name]:8.1f}")
    print(f"{'all':44} {sum(watch.tests.values()):6} {sum(watch.seconds.values()):8.1f}\n")
    for seconds, test in sorted(watch.slowest, reverse=True)[:10]:
        print(f"{seconds:8.1f}  {test}")
    return int(code)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
