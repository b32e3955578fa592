"""Pictures show what was fitted: affinities, spectra, filled cells, the price of privacy."""

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from sklearn.cluster import KMeans, SpectralClustering
from sklearn.datasets import load_digits, load_wine, make_blobs
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.impute import SimpleImputer
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from sklowrank.cluster import KSubspaces, ThresholdedSubspaceClustering
from sklowrank.datasets import make_union_of_subspaces
from sklowrank.dimension_reduction import LinearFrechetSDR
from sklowrank.impute import MatrixCompletionImputer
from sklowrank.inspection import AffinityDisplay, CompletionDisplay, PrivacyUtilityDisplay, SpectrumDisplay
from sklowrank.inspection._spectrum_display import laplacian_spectrum
from sklowrank.mixture import LowRankGaussianMixture
from sklowrank.privacy import PrivateKernelDensity, PrivateSimilarityClassifier

matplotlib.use("Agg")
UNION, CLASSES, _ = make_union_of_subspaces(150, n_clusters=3, n_dims=2, noise=0.02, random_state=0)
WINE = load_wine(as_frame=True).data
HOLES = WINE.mask(np.random.default_rng(0).random(WINE.shape) < 0.3)


@pytest.fixture(autouse=True)
def no_figure_is_left():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def graph():
    return ThresholdedSubspaceClustering(3, random_state=0).fit(UNION)


@pytest.fixture(scope="module")
def imputer():
    return MatrixCompletionImputer(random_state=0).fit(HOLES)


# Affinities


def test_affinity_is_that_of_the_rows_in_the_order_of_clusters(graph):
    display = AffinityDisplay.from_estimator(graph)
    order = np.argsort(graph.labels_, kind="stable")
    assert np.allclose(display.image, graph.affinity_matrix_.toarray()[order][:, order])
    assert display.ends.tolist() == np.cumsum(np.bincount(graph.labels_)).tolist()
    assert [label.get_text() for label in display.ax_.get_yticklabels()] == ["0", "1", "2"]
    within = graph.affinity_matrix_.toarray() * ~np.eye(150, dtype=bool)
    same = graph.labels_[:, None] == graph.labels_
    assert display.within == pytest.approx(within[same].sum() / within.sum())
    assert f"{100 * display.within:.0f} %" in display.ax_.get_title()


def test_cells_are_means(graph):
    whole = AffinityDisplay.from_estimator(graph)
    display = AffinityDisplay.from_estimator(graph, n_cells=50)
    assert np.allclose(display.image, whole.image.reshape(50, 3, 50, 3).mean((1, 3)))
    assert display.ends[-1] == pytest.approx(50)


def test_affinity_by_other_labels_and_of_other_clusterers(graph):
    names = np.array(["a", "b", "c"])[CLASSES]
    display = AffinityDisplay.from_estimator(graph, labels=names)
    assert display.labels.tolist() == ["a", "b", "c"]
    X, _ = make_blobs(60, random_state=0)
    dense = SpectralClustering(3, random_state=0).fit(X)
    assert AffinityDisplay.from_estimator(make_pipeline(dense)).image.shape == (60, 60)
    ensemble = KSubspaces(3, n_dims=2, affine=False, ensemble=20, random_state=0).fit(UNION)
    assert AffinityDisplay.from_estimator(ensemble).within > 0.5
    _, ax = plt.subplots()
    assert AffinityDisplay.from_estimator(graph, ax=ax).ax_ is ax


def test_what_has_no_affinity_is_refused(graph):
    with pytest.raises(ValueError, match="KMeans has no affinity_matrix_"):
        AffinityDisplay.from_estimator(KMeans(2, n_init=1).fit(UNION))
    with pytest.raises(ValueError, match=r"labels has shape \(3,\)"):
        AffinityDisplay.from_estimator(graph, labels=[0, 1, 2])
    for n_cells in (0, 2.5, True):
        with pytest.raises(ValueError, match=f"n_cells={n_cells} should be an integer of at least 1"):
            AffinityDisplay.from_estimator(graph, n_cells=n_cells)
    with pytest.raises(NotFittedError):
        AffinityDisplay.from_estimator(ThresholdedSubspaceClustering())


# Spectra


def test_laplacian_by_hand():
    rng = np.random.default_rng(0)
    A = np.abs(rng.normal(size=(30, 30)))
    A = A + A.T
    A[7] = A[:, 7] = 0  # a row without ties
    ties = A - np.diag(A.diagonal())
    kept = np.delete(np.arange(30), 7)
    degrees = ties.sum(1)[kept]
    expected = np.linalg.eigvalsh(np.eye(29) - ties[np.ix_(kept, kept)] / np.sqrt(np.outer(degrees, degrees)))
    assert np.allclose(laplacian_spectrum(A, 10), expected[:10].clip(0))
    big = np.abs(rng.normal(size=(260, 260)))
    big = big + big.T
    assert np.allclose(laplacian_spectrum(big, 5), laplacian_spectrum(big, 259)[:5], atol=1e-8)


def test_gap_of_a_graph():
    X, _, _ = make_union_of_subspaces(n_clusters=3, noise=0.02, random_state=0)
    display = SpectrumDisplay.from_estimator(ThresholdedSubspaceClustering(3, random_state=0).fit(X), n_values=8)
    assert display.gap == 3
    assert len(display.values[0]) == 8
    assert "3 eigenvalues" in display.ax_.get_title()


def test_spectra_of_components(imputer):
    mixture = LowRankGaussianMixture(3, n_dims=2, random_state=0).fit(UNION)
    display = SpectrumDisplay.from_estimator(make_pipeline(mixture))
    assert len(display.values) == 3
    for found, expected in zip(display.values, mixture.variances_):
        assert np.array_equal(found, np.sort(expected)[::-1])
    assert np.array_equal(display.floors, mixture.noise_variance_)
    assert len(display.ax_.get_legend().get_texts()) == 3
    assert np.array_equal(
        SpectrumDisplay.from_estimator(imputer, n_values=4).values[0], imputer.component_variance_[:4]
    )
    directions = LinearFrechetSDR(2).fit(WINE, WINE["alcohol"])
    assert np.array_equal(SpectrumDisplay.from_estimator(directions).values[0], np.abs(directions.eigenvalues_))
    _, ax = plt.subplots()
    assert SpectrumDisplay.from_estimator(PCA(4).fit(WINE), ax=ax).ax_ is ax


def test_spectra_of_tensors():
    with sklearn.config_context(array_api_dispatch=True):
        model = LowRankGaussianMixture(3, n_dims=2, random_state=0).fit(torch.from_numpy(UNION))
    assert isinstance(SpectrumDisplay.from_estimator(model).values[0], np.ndarray)


def test_what_has_no_spectrum_is_refused(graph):
    with pytest.raises(ValueError, match="KMeans has no spectrum"):
        SpectrumDisplay.from_estimator(KMeans(2, n_init=1).fit(UNION))
    for n_values in (1, 4.5):
        with pytest.raises(ValueError, match=f"n_values={n_values} should be an integer of at least 2"):
            SpectrumDisplay.from_estimator(graph, n_values=n_values)
    lone = SpectralClustering(2).fit(UNION[:20])
    lone.affinity_matrix_ = np.eye(4)
    with pytest.raises(ValueError, match="no edge between two rows"):
        SpectrumDisplay.from_estimator(lone)


# Filled cells


def test_cells_against_the_truth(imputer):
    display = CompletionDisplay.from_estimator(imputer, HOLES, X_true=WINE, features=["hue", 0])
    assert display.names == ["hue", "alcohol"]
    holes = HOLES["hue"].isna().to_numpy()
    bars = display.axes_[0].containers[0]
    assert np.allclose(bars.lines[0].get_xdata(), WINE["hue"][holes])
    assert np.allclose(bars.lines[0].get_ydata(), imputer.transform(HOLES)[holes, WINE.columns.get_loc("hue")])
    segments = np.array(bars.lines[2][0].get_segments())
    width = segments[:, 1, 1] - segments[:, 0, 1]
    assert np.allclose(width, 2 * 1.959964 * imputer.transform_std(HOLES)[holes, WINE.columns.get_loc("hue")])
    assert 0.85 < display.coverage() < 1
    narrow = CompletionDisplay.from_estimator(imputer, HOLES, X_true=WINE, level=0.5)
    assert 0.3 < narrow.coverage() < 0.75


def test_cells_among_observed_ones(imputer):
    display = CompletionDisplay.from_estimator(imputer, HOLES)
    assert len(display.axes_) == 3
    worst = HOLES.isna().sum().nlargest(3).min()
    assert all(HOLES[name].isna().sum() >= worst for name in display.names)
    observed = display.axes_[0].lines[0]
    assert len(observed.get_xdata()) == HOLES[display.names[0]].notna().sum()
    assert np.isnan(display.coverage())
    assert "95 % intervals" in display.axes_[0].get_legend().get_texts()[1].get_text()


def test_other_imputers_have_no_intervals(imputer):
    mean = SimpleImputer().fit(HOLES.to_numpy())
    display = CompletionDisplay.from_estimator(mean, HOLES.to_numpy(), X_true=WINE.to_numpy())
    assert display.half_width is None
    assert np.isnan(display.coverage())
    twice = FunctionTransformer(lambda X: 2 * X)
    pipe = make_pipeline(twice, MatrixCompletionImputer(2, random_state=0)).fit(HOLES)
    display = CompletionDisplay.from_estimator(pipe, HOLES, features=["hue"])
    assert np.nanmax(display.observed) == 2 * HOLES["hue"].max()


def test_wrong_columns_and_axes_are_refused(imputer):
    draw = CompletionDisplay.from_estimator
    with pytest.raises(ValueError, match="features names 'colour'"):
        draw(imputer, HOLES, features=["colour"])
    with pytest.raises(ValueError, match=r"features=\[13\] must name columns of X, which has n_features=13"):
        draw(imputer, HOLES, features=[13])
    with pytest.raises(ValueError, match=r"features=\[1\.5\] must name columns"):
        draw(imputer, HOLES, features=[1.5])
    with pytest.raises(ValueError, match="level=1 must lie strictly between 0 and 1"):
        draw(imputer, HOLES, level=1)
    with pytest.raises(ValueError, match=r"X_true has shape \(178, 2\)"):
        draw(imputer, HOLES, X_true=WINE.iloc[:, :2])
    with pytest.raises(ValueError, match="There are 1 axes for 2 columns"):
        draw(imputer, HOLES, features=[0, 1], axes=plt.subplots()[1])
    empty = HOLES.assign(empty=np.nan)
    dropped = MatrixCompletionImputer(2, random_state=0).fit(empty)
    with pytest.raises(ValueError, match="transform gives 13 columns for n_features=14"):
        draw(dropped, empty)


# Privacy


def test_privacy_costs_accuracy():
    X, y = load_digits(return_X_y=True)
    private = PrivateSimilarityClassifier(similarity="linear", bounds=(0, 1), classes=range(10), random_state=0)
    pipe = make_pipeline(FunctionTransformer(), KNeighborsClassifier())
    display = PrivacyUtilityDisplay.from_estimator(
        private, X / 16, y, epsilons=[10.0, 0.01, 1.0], reference=pipe, n_repeats=2
    )
    assert display.epsilons.tolist() == [0.01, 1.0, 10.0]
    assert display.scores.shape == (3, 2)
    assert (np.diff(display.scores.mean(1)) > 0).all()
    assert display.reference.mean() > 0.95
    assert display.ax_.get_xscale() == "log"
    names = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert names == ["PrivateSimilarityClassifier", "Pipeline, without privacy"]
    assert private.epsilon == 1.0


def test_privacy_of_a_density_and_scores_of_the_user():
    X = pd.DataFrame(np.random.default_rng(0).normal(0.5, 0.1, size=(400, 2)))
    density = PrivateKernelDensity(bandwidth=0.1, bounds=(0, 1), random_state=0)

    def middle(model, X, y=None):
        return float(model.score_samples(np.array([[0.5, 0.5]]))[0])

    display = PrivacyUtilityDisplay.from_estimator(
        density, X.to_numpy(), epsilons=[0.1, 1.0], n_repeats=2, scoring=middle, ax=plt.subplots()[1]
    )
    assert display.reference is None
    assert display.scores.shape == (2, 2)


def test_what_has_no_budget_is_refused():
    with pytest.raises(ValueError, match="StandardScaler has no parameter epsilon"):
        PrivacyUtilityDisplay.from_estimator(StandardScaler(), UNION)
