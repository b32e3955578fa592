"""Whatever comes in, what comes out is a right answer or an error that names the cause."""

import pytest

from benchmarks.quality.hostile import ATTACKS, NAMED, RIGHT, judge
from tests.common import public_estimators


@pytest.mark.slow
@pytest.mark.parametrize("estimator", public_estimators(), ids=lambda e: type(e).__name__)
def test_no_hostile_input_is_answered_wrongly(estimator):
    verdicts = {name: judge(estimator, name) for name in ATTACKS}
    assert len(verdicts) >= 40
    assert not {name: said for name, said in verdicts.items() if said[0] not in (RIGHT, NAMED)}
