"""The surface shows the values of the vector at the places that its lines visit."""

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from sklowrank.inspection import PersistenceSurfaceDisplay
from sklowrank.topology import MultiparameterPersistence

matplotlib.use("Agg")
CLOUDS = [np.random.default_rng(k).normal(size=(15, 3)) for k in range(4)]


@pytest.fixture(autouse=True)
def no_figure_is_left():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def model():
    return MultiparameterPersistence(second="column", resolution=(5, 7)).fit(CLOUDS)


def test_values_are_those_of_the_degree(model):
    vector = model.transform(CLOUDS[:1])[0]
    for degree, part in ((0, vector[:35]), (1, vector[35:]), (None, vector[35:])):
        display = PersistenceSurfaceDisplay.from_estimator(model, CLOUDS[:1], degree=degree)
        assert np.array_equal(display.values, part.reshape(5, 7))
    assert display.ax_.get_title() == "degree 1: loops"
    assert display.ax_.get_ylabel() == "measured value"


def test_cells_lie_around_the_places_of_the_lines(model):
    display = PersistenceSurfaceDisplay.from_estimator(model, CLOUDS[:1])
    middle = (display.lengths[1:, 1:] + display.lengths[:-1, :-1]) / 2
    second = (display.seconds[1:, 1:] + display.seconds[:-1, :-1]) / 2
    (_, reach), (low, high) = model.box_
    r, f = middle / reach, (second - low) / (high - low)
    assert np.allclose(r - f, np.linspace(-0.9, 0.9, 5)[:, None])  # a line has one offset
    assert np.allclose((r + f) / 2, np.linspace(0, 1, 7))


def test_several_objects_are_averaged(model):
    display = PersistenceSurfaceDisplay.from_estimator(model, CLOUDS, degree=0)
    assert np.allclose(display.values.ravel(), model.transform(CLOUDS).mean(axis=0)[:35])


def test_a_pipeline_that_begins_with_the_transformer_and_pandas_output(model):
    pipe = make_pipeline(MultiparameterPersistence(second="column", resolution=(5, 7)), LogisticRegression())
    pipe.set_output(transform="pandas").fit(CLOUDS, [0, 1, 0, 1])
    display = PersistenceSurfaceDisplay.from_estimator(pipe, CLOUDS[:1])
    assert np.allclose(display.values, PersistenceSurfaceDisplay.from_estimator(model, CLOUDS[:1]).values)


def test_axes_colours_and_names_are_taken(model):
    _, ax = plt.subplots()
    display = PersistenceSurfaceDisplay.from_estimator(model, CLOUDS[:1], ax=ax, second_name="charge")
    assert display.ax_ is ax
    assert ax.get_ylabel() == "charge"
    display.plot(vmax=3.0, cmap="viridis")
    assert display.ax_ is not ax
    assert display.ax_.collections[0].get_clim() == (0, 3.0)


@pytest.mark.parametrize("resolution", [(1, 5), (4, 1), (1, 1)])
def test_one_line_or_one_time(resolution):
    model = MultiparameterPersistence(second="column", resolution=resolution).fit(CLOUDS)
    display = PersistenceSurfaceDisplay.from_estimator(model, CLOUDS[:1])
    assert display.values.shape == resolution
    assert np.isfinite(display.lengths).all()


def test_what_makes_no_vectors_is_refused(model):
    with pytest.raises(TypeError, match="PCA makes no persistence vectors"):
        PersistenceSurfaceDisplay.from_estimator(PCA(), CLOUDS)
    with pytest.raises(NotFittedError):
        PersistenceSurfaceDisplay.from_estimator(MultiparameterPersistence(), CLOUDS)
    with pytest.raises(ValueError, match="degree=2 is not among"):
        PersistenceSurfaceDisplay.from_estimator(model, CLOUDS, degree=2)
