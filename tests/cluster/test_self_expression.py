"""What the self-expressive clusterers share: from rows to codes, graphs, subspaces, refinement and predictions."""

import warnings
from functools import partial

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.callback import ScoringMonitor
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_rand_score

from sklowrank.cluster import (
    ElasticNetSubspaceClustering,
    LeastSquaresSubspaceClustering,
    LowRankRepresentationClustering,
    SparseSubspaceClustering,
    SparseSubspaceClusteringOMP,
    ThresholdedSubspaceClustering,
)
from sklowrank.datasets import make_union_of_subspaces
from sklowrank.metrics import clustering_accuracy, subspace_preserving_error, subspace_recovery_error

MAKE = {
    "elastic net": ElasticNetSubspaceClustering,
    "least squares": LeastSquaresSubspaceClustering,
    "low rank": LowRankRepresentationClustering,
    "low rank, outliers": partial(LowRankRepresentationClustering, error="l21"),
    "sparse": SparseSubspaceClustering,
    "sparse, admm": partial(SparseSubspaceClustering, solver="admm", tol=1e-3),
    "sparse, affine": partial(SparseSubspaceClustering, affine=True),
    "pursuit": partial(SparseSubspaceClusteringOMP, n_nonzero_coefs=3),
    "thresholded": ThresholdedSubspaceClustering,
}
SPARSE = ("elastic net", "pursuit", "thresholded")
each = pytest.mark.parametrize("name", MAKE)


@pytest.fixture(scope="module")
def union():
    return make_union_of_subspaces(200, 20, n_dims=3, n_clusters=4, noise=0.01, unit_norm=True, random_state=3)


def build(name, **options):
    return MAKE[name](4, **{"n_dims": 3, "random_state": 0, **options})


@each
def test_subspaces_are_found_where_k_means_fails(name, union):
    X, y, truth = union
    model = build(name).fit(X)
    assert clustering_accuracy(y, model.labels_) >= 0.95
    assert subspace_recovery_error(model.bases_, truth) < 0.1
    assert clustering_accuracy(y, KMeans(4, n_init=10, random_state=0).fit_predict(X)) < 0.6
    if name != "low rank, outliers":
        assert subspace_preserving_error(model.representation_, y) < 0.5


@each
def test_graph_and_codes(name, union):
    X, _, _ = union
    model = build(name).fit(X)
    W = model.affinity_matrix_
    assert W.format == "csr"
    assert abs(W - W.T).max() < 1e-12
    assert np.all(W.diagonal() == 0)
    if not name.startswith("low rank"):
        C = model.representation_
        assert np.all((C.diagonal() if sp.issparse(C) else np.diag(C)) == 0)  # C = I would explain everything
    assert [U.shape for U in model.bases_] == [(20, 3)] * 4
    assert np.all(model.cluster_centers_ == 0)


@each
@pytest.mark.parametrize("predict_method", ["residual", "code"])
def test_new_rows_go_to_their_subspace(name, predict_method, union):
    X, _, truth = union
    model = build(name, predict_method=predict_method).fit(X)
    which = np.arange(80) % 4
    new = np.array([truth[k] @ c for k, c in zip(which, np.random.default_rng(0).normal(size=(80, 3)))])
    assert clustering_accuracy(which, model.predict(new)) >= 0.95
    assert np.array_equal(model.predict(new), model.predict(1000 * new))


@each
@pytest.mark.parametrize("refine", ["k-subspaces", "mixture"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_refined_labels_are_predictions(name, refine, dtype, union):
    X, y, _ = union
    model = build(name, refine=refine).fit(X.astype(dtype))
    assert np.array_equal(model.labels_, model.predict(X.astype(dtype)))
    assert clustering_accuracy(y, model.labels_) >= 0.95


def test_refining_repairs_labels():
    """In noise the graph of greedy codes is poor and its subspaces are better than its labels."""
    X, y, _ = make_union_of_subspaces(300, 20, n_dims=3, n_clusters=4, noise=0.1, random_state=0)
    plain, refined = (
        SparseSubspaceClusteringOMP(4, n_nonzero_coefs=4, n_dims=3, refine=r, random_state=0).fit(X)
        for r in ("none", "mixture")
    )
    assert clustering_accuracy(y, refined.labels_) > clustering_accuracy(y, plain.labels_)


@each
def test_scale_does_not_matter(name, union):
    X, _, _ = union
    assert adjusted_rand_score(build(name).fit(X).labels_, build(name).fit(1000 * X).labels_) == 1


@pytest.mark.parametrize("name", ["elastic net", "sparse", "sparse, admm", "pursuit", "thresholded"])
def test_scale_does_not_matter_without_normalisation(name, union):
    """gamma and tol are relative; an absolute penalty on the codes would fail."""
    X, _, _ = union
    a, b = (build(name, normalize=False).fit(X * scale).labels_ for scale in (1, 1000))
    assert adjusted_rand_score(a, b) == 1


@each
def test_rows_of_zeros_join_the_largest_cluster(name, union):
    X, _, _ = union
    X = X.copy()
    X[[0, 7]] = 0
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        with pytest.warns(UserWarning, match="2 of 200 rows are all zeros") as heard:
            model = build(name).fit(X)
    assert heard[0].filename == __file__
    counts = np.bincount(np.delete(model.labels_, [0, 7]))
    assert model.labels_[0] == model.labels_[7]
    assert counts[model.labels_[0]] == counts.max()
    assert model.predict(np.zeros((2, 20))).tolist() == [model.labels_[0]] * 2
    assert np.isfinite(model.affinity_matrix_.data).all()


@pytest.mark.parametrize("name", SPARSE)
@pytest.mark.parametrize("options", [{}, {"n_pca": 14}, {"predict_method": "code"}], ids=str)
def test_sparse_rows_are_rows(name, options, union):
    X, _, _ = union
    dense, sparse = build(name, **options).fit(X), build(name, **options).fit(sp.csr_matrix(X))
    assert adjusted_rand_score(dense.labels_, sparse.labels_) == 1
    assert np.array_equal(sparse.predict(sp.csr_matrix(X)), sparse.predict(X))


def test_what_sparse_rows_cannot_have(union):
    X = sp.csr_matrix(union[0])
    with pytest.raises(ValueError, match="center=True would make a sparse X dense"):
        ThresholdedSubspaceClustering(4, center=True).fit(X)
    with pytest.raises(ValueError, match=r"refine='mixture' needs dense rows\. Pass n_pca"):
        ThresholdedSubspaceClustering(4, refine="mixture").fit(X)
    assert len(ThresholdedSubspaceClustering(4, refine="mixture", n_pca=12).fit(X).bases_) == 4
    for name in ("least squares", "low rank", "sparse"):
        with pytest.raises(TypeError, match=r"Sparse data was passed.*TruncatedSVD"):
            build(name).fit(X)


@pytest.mark.parametrize("n_pca", [12, 0.999])
def test_principal_axes_keep_the_subspaces(n_pca, union):
    X, y, truth = union
    wide = np.hstack([X, np.zeros((len(X), 30))])
    model = build("thresholded", n_pca=n_pca).fit(wide)
    assert clustering_accuracy(y, model.labels_) >= 0.95
    assert [U.shape for U in model.bases_] == [(50, 3)] * 4
    assert subspace_recovery_error([U[:20] for U in model.bases_], truth) < 0.1
    assert np.array_equal(build("thresholded", n_pca=n_pca, refine="mixture").fit(wide).labels_, model.predict(wide))


def test_center_moves_the_subspaces(union):
    X, y, _ = union
    model = build("thresholded", center=True).fit(X + 5)
    assert clustering_accuracy(y, model.labels_) >= 0.95
    np.testing.assert_allclose(model.cluster_centers_, np.tile((X + 5).mean(0), (4, 1)))
    assert clustering_accuracy(y, model.predict(X + 5)) >= 0.95


def test_dimension_is_found(union):
    assert build("thresholded", n_dims="auto").fit(union[0]).n_dims_.tolist() == [3] * 4


@each
@pytest.mark.parametrize("more", ["zeros", "twice", "turned"])
def test_dimension_is_found_among_columns_that_add_none(name, more, union):
    X, y, _ = union
    Q = np.linalg.qr(np.random.default_rng(0).normal(size=(60, 20)))[0].T
    wide = {"zeros": np.c_[X, np.zeros((200, 21))], "twice": np.c_[X, X], "turned": X @ Q}[more]
    model = build(name, n_dims="auto").fit(wide)
    assert model.n_dims_.tolist() == [3] * 4
    assert clustering_accuracy(y, model.predict(wide)) >= 0.95


@pytest.mark.parametrize("affinity", ["max", "sum", "doubly_stochastic", "nearest_neighbors"])
@pytest.mark.parametrize("name", ["least squares", "elastic net"])
def test_affinities(name, affinity, union):
    X, y, _ = union
    model = build(name, affinity=affinity).fit(X)
    assert clustering_accuracy(y, model.labels_) >= 0.95
    if affinity == "doubly_stochastic":
        np.testing.assert_allclose(model.affinity_matrix_.sum(axis=1), 1, atol=1e-3)


def test_affinity_auto_is_what_the_docs_say(union):
    X, _, _ = union
    for name, how in (("least squares", "max"), ("thresholded", "sum")):
        same = build(name).fit(X).affinity_matrix_ - build(name, affinity=how).fit(X).affinity_matrix_
        assert abs(same).max() == 0


def test_pivoted_qr_needs_no_seed(union):
    X, y, _ = union
    a, b = (build("thresholded", assign_labels="cluster_qr", random_state=s).fit(X).labels_ for s in (0, 1))
    assert clustering_accuracy(a, b) == 1
    assert clustering_accuracy(y, a) >= 0.95


def test_n_nonzero_coefs_keeps_the_largest(union):
    X, _, _ = union
    for name in ("elastic net", "sparse", "sparse, admm"):
        few, every = (build(name, n_nonzero_coefs=n).fit(X).representation_ for n in (2, None))
        assert np.diff(few.indptr).max() == 2
        kept = abs(few).toarray()
        np.testing.assert_allclose(np.sort(kept, 1)[:, -2:], np.sort(abs(every).toarray(), 1)[:, -2:])


@pytest.mark.parametrize("name", ["elastic net", "sparse", "sparse, admm"])
def test_callbacks_that_score_on_the_way_change_nothing(name):
    """They cluster the codes of each iteration, and must not use up the random numbers of the last one."""
    X, y, _ = make_union_of_subspaces(120, 8, n_dims=3, n_clusters=4, noise=0.1, random_state=0)
    alone, watched = (build(name, n_init=1, refine="mixture") for _ in range(2))
    seen = []
    monitor = ScoringMonitor(
        scoring={"accuracy": lambda fitted, X, y: seen.append(clustering_accuracy(y, fitted.labels_)) or 0.0}
    )
    watched.set_callbacks(monitor).fit(X, y)
    assert len(seen) > 2
    assert np.array_equal(watched.labels_, alone.fit(X).labels_)
    assert all(np.array_equal(a, b) for a, b in zip(watched.bases_, alone.bases_))


def test_a_new_fit_replaces_all_of_a_former_one(union):
    X, _, _ = union
    model = build("thresholded", refine="mixture", predict_method="code", n_pca=12, center=True).fit(X)
    model.set_params(refine="none", predict_method="residual", n_pca=None, center=False).fit(X[:100])
    fresh = build("thresholded").fit(X[:100])
    assert set(vars(model)) == set(vars(fresh))
    assert np.array_equal(model.predict(X), fresh.predict(X))
    assert all(model._fitted[name] is None for name in ("centre", "axes", "components", "atoms"))


def test_weak_fit_leaves_no_code_and_one_cluster(union):
    X, _, _ = union
    model = build("elastic net", gamma=0.9).fit(X)
    assert abs(model.representation_).max() == 0
    assert set(model.labels_) == {0}
    assert model.n_components_graph_ == len(X)


def test_float32_of_noise_free_rows():
    """Gram matrices in float32 would make eigenvectors of rounding."""
    X, y, _ = make_union_of_subspaces(300, 20, n_dims=4, n_clusters=5, unit_norm=True, random_state=0)
    for name in MAKE:
        model = MAKE[name](5, random_state=0).fit(X.astype(np.float32))
        if name != "low rank, outliers":
            assert clustering_accuracy(y, model.labels_) >= 0.99, name
        assert model.bases_[0].dtype == np.float32
        assert model.affinity_matrix_.dtype == np.float32


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_clusters": 300}, "n_samples=200 should be >= n_clusters=300"),
        ({"n_dims": 20}, "n_dims=20 is too large for X with n_features=20. Pass at most 19"),
    ],
)
@each
def test_what_does_not_fit_the_data_is_refused(name, options, message, union):
    with pytest.raises(ValueError, match=message):
        build(name).set_params(**options).fit(union[0])


def test_code_prediction_has_to_be_asked_for_before_fit(union):
    X, _, _ = union
    model = build("thresholded").fit(X).set_params(predict_method="code")
    with pytest.raises(ValueError, match=r"predict_method='code' needs the training rows\. Set it before fit"):
        model.predict(X)


def test_one_cluster_and_few_rows_are_legal(union):
    X, _, _ = union
    for name in MAKE:
        assert set(MAKE[name](1, random_state=0).fit(X).labels_) == {0}
        assert len(MAKE[name](2, random_state=0).fit(X[:3]).labels_) == 3


def test_rows_whose_products_overflow():
    X = make_union_of_subspaces(60, 8, n_dims=2, n_clusters=2, random_state=0)[0]
    with pytest.raises(ValueError, match=r"rows longer than .* whose products overflow"):
        ThresholdedSubspaceClustering(2, normalize=False).fit(X * 1e160)
    labels = [ThresholdedSubspaceClustering(2, n_pca=4, random_state=0).fit(X * unit).labels_ for unit in (1, 1e160)]
    np.testing.assert_array_equal(*labels)
