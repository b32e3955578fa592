"""Generated responses lie in their spaces and depend on the features through what is returned."""

import numpy as np
import pytest

from sklowrank.datasets import make_frechet_regression

SHAPES = {
    "number": (),
    "heavy_tails": (),
    "location": (50,),
    "location_scale": (50,),
    "matrix": (3, 3),
    "direction": (3,),
}


@pytest.mark.parametrize("response", SHAPES)
def test_shapes_and_seeds(response):
    X, y, S = make_frechet_regression(60, 6, response=response, random_state=3)
    assert X.shape == (60, 6)
    assert y.shape == (60, *SHAPES[response])
    assert S.shape == (60, 2 if response in ("location_scale", "matrix") else 1)
    again = make_frechet_regression(60, 6, response=response, random_state=3)
    assert all(np.array_equal(a, b) for a, b in zip((X, y, S), again))
    seeds = (np.random.RandomState(0), np.random.RandomState(0), np.random.RandomState(1))
    draws = [make_frechet_regression(60, 6, response=response, random_state=seed)[1] for seed in seeds]
    assert np.array_equal(draws[0], draws[1])
    assert not np.array_equal(draws[0], draws[2])


def test_responses_lie_in_their_spaces_and_follow_the_features():
    _, y, S = make_frechet_regression(response="matrix", random_state=0)
    assert np.linalg.eigvalsh(y).min() > 0
    assert np.corrcoef(np.log(np.linalg.eigvalsh(y)[:, -1]), S[:, 0])[0, 1] > 0.3
    _, y, S = make_frechet_regression(response="direction", random_state=0)
    assert np.allclose(np.linalg.norm(y, axis=1), 1)
    assert np.corrcoef(np.arccos(y[:, 2]), S[:, 0])[0, 1] > 0.8
    _, y, S = make_frechet_regression(response="location_scale", random_state=0)
    assert np.all(np.diff(y, axis=1) > 0)
    assert np.corrcoef(y.mean(1), S[:, 0])[0, 1] > 0.9
    assert np.corrcoef(y.std(1), S[:, 1])[0, 1] > 0.85  # the spread has variance 0.25 about S


def test_contamination_moves_whole_rows():
    X, y, _ = make_frechet_regression(random_state=0)
    X_same, moved, _ = make_frechet_regression(contamination=0.1, random_state=0)
    assert np.array_equal(X, X_same)
    shift = moved - y
    assert np.allclose(shift, shift[:, :1])
    assert 0.05 < (np.abs(shift[:, 0]) > 1e-9).mean() < 0.15
    with pytest.raises(ValueError, match=r"contamination=0.1 needs numbers or distributions"):
        make_frechet_regression(response="matrix", contamination=0.1)
