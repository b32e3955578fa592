"""Whatever comes in, what comes out is a right answer or an error that names the cause."""

import pytest

from benchmarks.quality.hostile import ATTACKS, NAMED, RIGHT, judge
from tests.common import public_estimators
from tests.estimators import spec_of

# What wraps an estimator hands X on to it, and fits it many times.
ESTIMATORS = [e for e in public_estimators() if spec_of(e).wraps is None]


@pytest.mark.slow
@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda e: type(e).__name__)
def test_no_hostile_input_is_answered_wrongly(estimator):
    verdicts = {name: judge(estimator, name) for name in ATTACKS}
    assert len(verdicts) >= 40
    assert not {name: said for name, said in verdicts.items() if said[0] not in (RIGHT, NAMED)}
