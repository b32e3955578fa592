"""The picture of a dictionary shows the components as they are, under the right names."""

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
import sklearn
import torch
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.decomposition import NMF, PCA
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler, scale

from sklowrank.decomposition import SupervisedDictionaryLearning, SupervisedDictionaryRegressor
from sklowrank.inspection import DictionaryDisplay

matplotlib.use("Agg")
draw = DictionaryDisplay.from_estimator
TABLE, MALIGN = load_breast_cancer(return_X_y=True, as_frame=True)
DIGITS, NUMBERS = load_digits(n_class=4, return_X_y=True)


@pytest.fixture(autouse=True)
def no_figure_is_left():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def cancer():
    X = StandardScaler().set_output(transform="pandas").fit_transform(TABLE)
    return SupervisedDictionaryLearning(2, covariate_columns=["mean texture"], random_state=0).fit(X, MALIGN)


@pytest.fixture(scope="module")
def digits():
    return SupervisedDictionaryLearning(3, random_state=0).fit(DIGITS / 16, NUMBERS)


def labels(panel):
    return [label.get_text() for label in panel.get_yticklabels()]


def test_bars_are_the_leading_features_without_covariates(cancer):
    display = draw(cancer, n_top=5)
    assert display.axes_.shape == (2,)
    names = np.array([name for name in TABLE.columns if name != "mean texture"])
    for component, panel in zip(cancer.components_, display.axes_):
        top = np.argsort(-np.abs(component))[:5]
        assert labels(panel) == list(names[top])
        assert [bar.get_width() for bar in panel.patches] == list(component[top])
        assert panel.yaxis_inverted()
        colours = {bar.get_facecolor() for bar in panel.patches if bar.get_width() > 0}
        assert not colours & {bar.get_facecolor() for bar in panel.patches if bar.get_width() < 0}


def test_images_are_the_components_with_zero_in_the_middle(digits):
    display = draw(digits, image_shape=(8, 8))
    for component, panel in zip(digits.components_, display.axes_):
        (image,) = panel.images
        assert np.array_equal(image.get_array(), component.reshape(8, 8))
        assert image.get_clim() == (-np.abs(component).max(), np.abs(component).max())
        assert image.get_cmap().name == "RdBu_r"
        assert len(panel.get_xticks()) == 0
    parts = NMF(2, max_iter=50, tol=0.1).fit(DIGITS)
    (image,) = draw(parts, image_shape=(8, 8)).axes_[0].images
    assert image.get_cmap().name == "Greys"
    assert image.get_clim() == (0, parts.components_[0].max())
    (image,) = draw(parts, image_shape=(4, 4, 4)).axes_[0].images
    assert np.allclose(image.get_array().max(), 1)


def test_titles_tell_what_a_component_speaks_for(cancer, digits):
    titles = [panel.get_title() for panel in draw(cancer).axes_]
    assert titles == [f"component {k}\nclass 1: {cancer.coef_[0, k]:+.2g}" for k in range(2)]
    titles = [panel.get_title() for panel in draw(digits).axes_]
    best = digits.coef_.argmax(0)
    assert titles == [f"component {k}\nclass {best[k]}: {digits.coef_[best[k], k]:+.2g}" for k in range(3)]
    model = SupervisedDictionaryRegressor(1, random_state=0).fit(scale(TABLE), MALIGN)
    assert draw(model).axes_[0].get_title() == f"component 0\nweight: {model.coef_[0, 0]:+.2g}"
    assert draw(PCA(1).fit(TABLE)).axes_[0].get_title() == "component 0"


def test_names_are_given_seen_or_numbered(digits):
    X = TABLE.to_numpy()
    model = SupervisedDictionaryLearning(1, covariate_columns=[0], random_state=0).fit(scale(X), MALIGN)
    assert draw(model).feature_names.tolist() == [f"x{i}" for i in range(1, 30)]
    whole = [f"name {i}" for i in range(30)]
    assert draw(model, feature_names=whole).feature_names.tolist() == whole[1:]
    assert draw(model, feature_names=whole[1:]).feature_names.tolist() == whole[1:]
    assert draw(PCA(1).fit(TABLE)).feature_names.tolist() == list(TABLE.columns)
    with pytest.raises(ValueError, match="feature_names has 3 names, but X has n_features=30 and components have 29"):
        draw(model, feature_names=["a", "b", "c"])


def test_last_step_of_a_pipeline_is_drawn():
    pipeline = make_pipeline(StandardScaler(), SupervisedDictionaryLearning(2, random_state=0)).fit(TABLE, MALIGN)
    assert np.array_equal(draw(pipeline).components, pipeline[-1].components_)


def test_axes_may_be_given_and_the_rest_of_a_grid_is_removed(digits):
    figure, axes = plt.subplots(2, 2)
    display = draw(digits, image_shape=(8, 8), axes=axes)
    assert display.figure_ is figure
    assert list(display.axes_) == list(axes.ravel()[:3])
    with pytest.raises(ValueError, match="There are 2 axes for n_components=3"):
        draw(digits, axes=axes[0])
    assert len(draw(digits, n_columns=2).figure_.axes) == 3
    alone = draw(PCA(1).fit(TABLE), axes=axes[0, 0])
    assert alone.axes_[0] is axes[0, 0]


def test_what_cannot_be_drawn_is_refused(digits):
    with pytest.raises(ValueError, match=r"image_shape=\(8, 9\) has 72 pixels, but components have n_features=64"):
        draw(digits, image_shape=(8, 9))
    with pytest.raises(ValueError, match="ints >= 1"):
        draw(digits, image_shape=(8.0, 8))
    with pytest.raises(ValueError, match=r"n_columns=2\.5 should be an integer of at least 1"):
        draw(digits, n_columns=2.5)
    with pytest.raises(ValueError, match="n_top=0 should be an integer of at least 1"):
        draw(digits, n_top=0)
    with pytest.raises(NotFittedError):
        draw(SupervisedDictionaryLearning())
    with pytest.raises(ValueError, match="LogisticRegression has no components_"):
        draw(LogisticRegression().fit(TABLE, MALIGN > 0))


def test_components_of_tensors_are_drawn(digits):
    with sklearn.config_context(array_api_dispatch=True):
        X, y = torch.from_numpy(DIGITS / 16), torch.from_numpy(NUMBERS)
        model = SupervisedDictionaryLearning(3, random_state=0).fit(X, y)
        display = draw(model, image_shape=(8, 8))
    assert isinstance(model.components_, torch.Tensor)
    assert np.allclose(display.axes_[0].images[0].get_array(), digits.components_[0].reshape(8, 8), atol=1e-6)
    assert display.axes_[0].get_title() == draw(digits).axes_[0].get_title()
