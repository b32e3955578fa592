"""The colours of an embedding are the errors of its distances."""

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from scipy.spatial.distance import cdist
from sklearn.datasets import make_swiss_roll
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.manifold import Isomap
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklowrank.inspection import EmbeddingDisplay
from sklowrank.manifold import HeatGeodesicEmbedding

matplotlib.use("Agg")
ROLL, _ = make_swiss_roll(150, random_state=0)


@pytest.fixture(autouse=True)
def no_figure_is_left():
    yield
    plt.close("all")


def test_errors_are_those_of_distances():
    model = HeatGeodesicEmbedding(random_state=0).fit(ROLL)
    display = EmbeddingDisplay.from_estimator(model)
    off = cdist(model.embedding_, model.embedding_) - model.dist_matrix_
    expected = np.sqrt((off**2).sum(1) / (model.dist_matrix_**2).sum(1))
    np.testing.assert_allclose(display.errors, expected, rtol=1e-10)
    np.testing.assert_allclose(display.stress, model.stress_, rtol=1e-8)
    drawn = display.ax_.collections[0]
    assert sorted(drawn.get_array().tolist()) == sorted(display.errors.tolist())
    assert display.ax_.get_title() == f"stress {display.stress:.3f}"


def test_a_row_in_the_wrong_place_has_the_largest_error():
    points = np.random.default_rng(0).normal(size=(40, 2))
    moved = points.copy()
    moved[7] += 10
    display = EmbeddingDisplay.from_embedding(moved, cdist(points, points))
    assert display.errors.argmax() == 7
    assert EmbeddingDisplay.from_embedding(points, cdist(points, points)).stress < 1e-12


def test_isomap_pipelines_and_landmarks_are_plotted():
    isomap = Isomap(n_neighbors=8).fit(ROLL)
    assert EmbeddingDisplay.from_estimator(isomap).errors.shape == (150,)
    pipe = make_pipeline(StandardScaler(), HeatGeodesicEmbedding(3, n_landmarks=60, random_state=0)).fit(ROLL)
    display = EmbeddingDisplay.from_estimator(pipe)
    assert display.embedding.shape == (60, 2)
    np.testing.assert_allclose(display.stress, pipe[-1].stress_, rtol=1e-6)  # of all three components
    _, ax = plt.subplots()
    assert EmbeddingDisplay.from_embedding(ROLL, cdist(ROLL, ROLL), ax=ax, cmap="magma").ax_ is ax


def test_equal_rows_have_no_error():
    display = EmbeddingDisplay.from_embedding(np.zeros((5, 2)), np.zeros((5, 5)))
    assert display.stress == 0
    assert not display.errors.any()


def test_what_cannot_be_plotted_is_refused():
    with pytest.raises(NotFittedError):
        EmbeddingDisplay.from_estimator(HeatGeodesicEmbedding())
    with pytest.raises(ValueError, match="PCA has no embedding_ and no dist_matrix_"):
        EmbeddingDisplay.from_estimator(PCA(2).fit(ROLL))
    with pytest.raises(ValueError, match="two columns at least"):
        EmbeddingDisplay.from_estimator(HeatGeodesicEmbedding(1).fit(ROLL))
    with pytest.raises(ValueError, match=r"distances has shape \(10, 10\)"):
        EmbeddingDisplay.from_embedding(ROLL, np.zeros((10, 10)))
    D = cdist(ROLL, ROLL)
    with pytest.raises(ValueError, match="distances contains NaN"):
        EmbeddingDisplay.from_embedding(ROLL, np.where(D > 5, np.nan, D))
    with pytest.raises(ValueError, match="embedding contains infinity"):
        EmbeddingDisplay.from_embedding(np.full_like(ROLL, np.inf), D)
    with pytest.raises(ValueError, match="negative entries"):
        EmbeddingDisplay.from_embedding(ROLL, -D)


@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_scale_does_not_change_errors(scale):
    display = EmbeddingDisplay.from_embedding(scale * ROLL, 2 * scale * cdist(ROLL, ROLL))
    np.testing.assert_allclose(display.errors, 0.5)
    assert np.isclose(display.stress, 0.5)
