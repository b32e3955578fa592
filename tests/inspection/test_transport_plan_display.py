"""Pictures of transport plans."""

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklowrank.inspection import TransportPlanDisplay
from sklowrank.transport import OTAdaptationClassifier, SinkhornTransport

matplotlib.use("Agg")
RNG = np.random.default_rng(0)
X, T = RNG.normal(size=(60, 2)) * [3, 1], RNG.normal(size=(80, 2)) * [3, 1] + [0, 6]


@pytest.fixture(autouse=True)
def no_figure_is_left():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def transport():
    return SinkhornTransport(0.02).fit(X, X_target=T)


def test_the_image_holds_the_mass_near_the_diagonal(transport):
    display = TransportPlanDisplay.from_estimator(transport)
    assert display.image.shape == (60, 80)
    assert display.image.mean() == pytest.approx(1.0)
    i, j = np.nonzero(display.image > display.image.max() / 10)
    assert np.corrcoef(i, j)[0, 1] > 0.95
    assert display.within is None
    assert display.ax_.get_xlabel() == "target rows"


def test_cells_are_means_over_rows(transport):
    whole = TransportPlanDisplay.from_estimator(transport).image
    display = TransportPlanDisplay.from_estimator(transport, n_cells=20)
    assert np.allclose(display.image, whole.reshape(20, 3, 20, 4).mean((1, 3)))


def test_rows_are_sorted_by_class(transport):
    y, z = np.where(X[:, 0] > 0, "right", "left"), np.where(T[:, 0] > 0, "right", "left")
    display = TransportPlanDisplay.from_estimator(transport, labels=y, target_labels=z)
    n, m = np.sum(y == "left"), np.sum(z == "left")
    assert display.ends.tolist() == [n, 60]
    assert display.target_ends.tolist() == [m, 80]
    blocks = display.image[:n, :m].sum() + display.image[n:, m:].sum()
    assert display.within == pytest.approx(blocks / display.image.sum())
    assert display.within > 0.85
    assert f"{100 * display.within:.0f} %" in display.ax_.get_title()


def test_segments_join_the_pairs_with_most_mass(transport):
    display = TransportPlanDisplay.from_estimator(transport, kind="segments", n_segments=50)
    plan = transport.coupling_
    i, j = np.unravel_index(plan.argmax(), plan.shape)
    assert np.array_equal(display.segments[-1], [X[i], T[j]])
    assert display.strengths[-1] == 1.0
    assert np.all(np.diff(display.strengths) >= 0)
    assert display.strengths[0] == pytest.approx(np.sort(plan.ravel())[-50] / plan.max())
    assert len(display.ax_.collections) == 3
    every = TransportPlanDisplay.from_estimator(transport, kind="segments", n_segments=10**6)
    assert every.segments.shape == (4800, 2, 2)


def test_pipelines_and_models_have_a_transport(transport):
    expected = TransportPlanDisplay.from_estimator(transport).image
    model = OTAdaptationClassifier(transport=SinkhornTransport(0.02)).fit(X, X[:, 0] > 0, X_target=T)
    assert np.allclose(TransportPlanDisplay.from_estimator(model).image, expected)
    pipe = make_pipeline(StandardScaler(), SinkhornTransport()).fit(X)
    _, ax = plt.subplots()
    assert TransportPlanDisplay.from_estimator(pipe, ax=ax).ax_ is ax


def test_refusals(transport):
    with pytest.raises(NotFittedError):
        TransportPlanDisplay.from_estimator(SinkhornTransport())
    with pytest.raises(ValueError, match="StandardScaler has no coupling_"):
        TransportPlanDisplay.from_estimator(StandardScaler().fit(X))
    for wrong in ({"kind": "lines"}, {"n_cells": 0}, {"n_segments": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            TransportPlanDisplay.from_estimator(transport, **wrong)
    with pytest.raises(ValueError, match=r"labels has shape \(3,\)"):
        TransportPlanDisplay.from_estimator(transport, labels=np.ones(3), target_labels=np.ones(3))
    with pytest.raises(ValueError, match="one is text, the other numbers"):
        TransportPlanDisplay.from_estimator(transport, labels=np.ones(len(X)), target_labels=["a"] * len(T))
    with pytest.raises(ValueError, match=r"n_cells=2\.5 should be an integer"):
        TransportPlanDisplay.from_estimator(transport, n_cells=2.5)
    with pytest.raises(ValueError, match="Pass both, or none"):
        TransportPlanDisplay.from_estimator(transport, labels=np.ones(3))
    wide = SinkhornTransport().fit(np.eye(3))
    with pytest.raises(ValueError, match="needs two features"):
        TransportPlanDisplay.from_estimator(wide, kind="segments")
