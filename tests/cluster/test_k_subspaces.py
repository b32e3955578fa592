"""K-subspaces: against a slow reference, against random starts alone, over weights, blocks, batches and precisions."""

import itertools
import warnings

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning

from sklowrank.cluster import KSubspaces
from sklowrank.cluster import _k_subspaces_starts as starts
from sklowrank.cluster._k_subspaces_solver import alternate, descend, fit_starts, random_labels, random_starts
from sklowrank.cluster._k_subspaces_starts import co_association
from sklowrank.datasets import make_union_of_subspaces
from sklowrank.metrics import clustering_accuracy, subspace_recovery_error


def slow_alternation(X, labels, K, d, affine, max_iter=100):
    """K-subspaces as one reads it: singular vectors of each cluster, nearest flat of each row."""
    for _ in range(max_iter):
        R = np.empty((len(X), K))
        for k in range(K):
            mean = X[labels == k].mean(0) if affine else np.zeros(X.shape[1])
            V = np.linalg.svd(X[labels == k] - mean, full_matrices=False)[2][:d]
            R[:, k] = (((X - mean) - (X - mean) @ V.T @ V) ** 2).sum(1)
        if np.array_equal(labels, R.argmin(1)):
            break
        labels = R.argmin(1)
    return labels, R.min(1).sum()


def tensors(X):
    return torch.from_numpy(X), torch.ones(len(X), dtype=torch.float64)


# Alternation


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("shape", [(120, 9, 2, 3), (60, 40, 4, 3)])  # more rows than features in a cluster, and fewer
def test_alternation_is_that_of_the_reference(shape, affine):
    n, D, d, K = shape
    X, y, _ = make_union_of_subspaces(n, D, d, K, noise=0.2, affine=affine, random_state=0)
    rng = np.random.default_rng(0)
    start = np.where(rng.random(n) < 0.3, rng.integers(K, size=n), y)
    labels, inertia = slow_alternation(X, start.copy(), K, d, affine)
    _, _, found = alternate(*tensors(X), torch.from_numpy(start), d, centred=affine)
    assert np.array_equal(found, labels)
    model = KSubspaces(K, n_dims=d, affine=affine, random_state=0).fit(X)
    assert model.inertia_ <= inertia * (1 + 1e-9)  # the best of ten starts is not above one descent that began near


def test_alternation_knows_weights_dimensions_and_rows_without_weight():
    X, y, _ = make_union_of_subspaces(90, 8, 2, 3, noise=0.1, random_state=1)
    times = np.random.default_rng(1).integers(0, 4, size=90)
    labels = torch.from_numpy(y)
    weighted = alternate(torch.from_numpy(X), torch.from_numpy(times.astype(float)), labels, [2, 2, 2], centred=True)
    copies = torch.from_numpy(np.repeat(X, times, axis=0)), torch.ones(times.sum(), dtype=torch.float64)
    repeated = alternate(*copies, labels.repeat_interleave(torch.from_numpy(times)), [2, 2, 2], centred=True)
    assert torch.allclose(weighted[0], repeated[0], atol=1e-12)
    for U, V in zip(weighted[1], repeated[1]):
        assert torch.allclose(U @ U.T, V @ V.T, atol=1e-10)
    assert len(weighted[2]) == 90


def test_empty_clusters_are_seeded_with_the_rows_fitted_worst():
    X, y, _ = make_union_of_subspaces(120, 10, 2, 3, random_state=0)
    two = torch.from_numpy(np.minimum(y, 1))
    _, _, labels = alternate(*tensors(X), two, [2, 2, 2], centred=False)
    assert set(labels.tolist()) == {0, 1, 2}  # whether the new flat is a true one is left to the choice among starts


def test_fits_are_exact_where_a_cluster_has_fewer_rows_than_dimensions():
    X = np.random.default_rng(0).normal(size=(5, 12))
    _, bases, strengths, counts = fit_starts(*tensors(X), torch.tensor([[0, 0, 0, 1, 1]]), [4, 4], centred=False)
    for U in bases[0]:
        assert torch.allclose(U.T @ U, torch.eye(4, dtype=torch.float64), atol=1e-12)
    assert torch.allclose(strengths[0].sum(1), torch.from_numpy(np.array([(X[:3] ** 2).sum(), (X[3:] ** 2).sum()])))
    assert counts.tolist() == [[3, 2]]


def test_survivors_alone_go_on_and_end_at_a_fixed_point():
    X, _, _ = make_union_of_subspaces(300, 12, 3, 4, noise=0.2, random_state=0)
    X, weights, dims = torch.from_numpy(X), torch.ones(300, dtype=torch.float64), [3] * 4
    starts = random_labels(X, weights, dims, 12, centred=False, generator=torch.Generator().manual_seed(0))
    everybody = [step.state.inertia for step in descend(X, weights, starts, dims, centred=False)]
    chosen = list(descend(X, weights, starts, dims, centred=False, survivors=2))
    assert [step.state.inertia for step in chosen[:5]] == pytest.approx(everybody[:5], rel=1e-12)
    assert chosen[-1].gap == 0
    assert everybody[-1] <= chosen[-1].state.inertia < everybody[4]
    alone = list(descend(X, weights, starts, dims, centred=False, survivors=12))
    assert [step.state.inertia for step in alone] == pytest.approx(everybody, rel=1e-12)  # batches round as they like


def test_random_starts_return_the_best():
    X, y, _ = make_union_of_subspaces(300, 20, 4, 5, noise=0.05, random_state=0)
    generator = torch.Generator().manual_seed(0)
    labels = random_starts(*tensors(X), 5, 4, 10, centred=False, generator=generator)
    assert clustering_accuracy(y, labels) == 1


# What it finds


@pytest.mark.parametrize("affine", [False, True])
def test_recovery_where_k_cluster_centers_fails(affine):
    X, y, bases = make_union_of_subspaces(300, 20, 4, 5, noise=0.05, affine=affine, random_state=0)
    model = KSubspaces(5, affine=affine, random_state=0).fit(X)
    assert list(model.n_dims_) == [4] * 5
    assert clustering_accuracy(y, model.labels_) == 1
    # Noise 0.05 in 16 directions against coordinates of variance 1 over 60 rows turns a subspace by about
    # 0.05 / sqrt(60) per coordinate and direction: sqrt(4 * 16) * 0.05 / sqrt(60) / sqrt(4) = 0.026.
    assert subspace_recovery_error(model.bases_, bases) < 0.04
    if not affine:
        assert clustering_accuracy(y, KMeans(5, n_init=10, random_state=0).fit_predict(X)) < 0.5


def test_random_starts_alone_miss_small_clusters_and_the_default_does_not():
    errors = {"auto": [], "random": []}
    for seed in range(5):
        X, _, bases = make_union_of_subspaces(36, 48, 6, 3, noise=0.02, orthogonal=True, random_state=seed)
        for init, found in errors.items():
            model = KSubspaces(3, n_dims=6, affine=False, init=init, n_init=20, random_state=seed).fit(X)
            found.append(subspace_recovery_error(model.bases_, bases))
    assert np.mean(errors["auto"]) < 0.08  # principal components with the true labels leave 0.06
    assert np.mean(errors["random"]) > 0.3


def test_dimensions_of_their_own_find_their_clusters():
    rng = np.random.default_rng(0)
    U = [np.linalg.qr(rng.normal(size=(15, d)))[0] for d in (3, 1, 2)]
    X = np.vstack([rng.normal(size=(60, B.shape[1])) @ B.T for B in U]) + 0.02 * rng.normal(size=(180, 15))
    model = KSubspaces(3, n_dims=[1, 2, 3], affine=False, random_state=0).fit(X)
    assert [B.shape for B in model.bases_] == [(15, 1), (15, 2), (15, 3)]
    assert list(model.n_dims_) == [1, 2, 3]
    assert clustering_accuracy(np.repeat([0, 1, 2], 60), model.labels_) > 0.97  # rows near the origin are near all
    assert subspace_recovery_error(model.bases_, sorted(U, key=np.size)) < 0.05


def test_one_cluster_is_principal_component_analysis():
    X = np.random.default_rng(0).normal(size=(80, 6)) @ np.diag([5, 4, 3, 1, 1, 1]) + 7
    model = KSubspaces(1, n_dims=3, random_state=0).fit(X)
    pca = PCA(3).fit(X)
    assert subspace_recovery_error(model.bases_, [pca.components_.T]) < 1e-10
    left = X - pca.inverse_transform(pca.transform(X))
    assert model.inertia_ == pytest.approx((left**2).sum())
    largest = np.abs(model.bases_[0]).argmax(0)
    assert (model.bases_[0][largest, range(3)] > 0).all()


# What it answers


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_outputs_follow_from_the_stored_flats(dtype):
    X, _, _ = make_union_of_subspaces(200, 10, 2, 4, noise=0.3, affine=True, random_state=0)
    X = X.astype(dtype)
    weights = np.random.default_rng(0).random(200)
    model = KSubspaces(4, n_dims=2, random_state=0).fit(X, sample_weight=weights)
    parts = [
        (X.astype(float) - m) - (X.astype(float) - m) @ U @ U.T for m, U in zip(model.cluster_centers_, model.bases_)
    ]
    R = np.stack([(part**2).sum(1) for part in parts], 1)
    assert model.transform(X).dtype == model.cluster_centers_.dtype == model.bases_[0].dtype == dtype
    assert np.allclose(model.transform(X) ** 2, R, rtol=1e-5, atol=1e-5 if dtype is np.float32 else 1e-12)
    assert np.array_equal(model.labels_, R.argmin(1))
    assert np.array_equal(model.labels_, model.predict(X))
    assert model.labels_.dtype == np.int64
    assert model.inertia_ == pytest.approx(weights @ R.min(1), rel=1e-5)
    assert model.score(X, sample_weight=weights) == pytest.approx(-model.inertia_, rel=1e-12)
    assert list(model.get_feature_names_out()) == [f"ksubspaces{k}" for k in range(4)]


def test_weights_are_copies_and_the_order_of_rows_does_not_matter():
    X, _, _ = make_union_of_subspaces(150, 8, 2, 4, noise=0.3, affine=True, random_state=3)
    rng = np.random.default_rng(3)
    times = rng.integers(0, 4, size=150)
    copies = rng.permutation(np.repeat(X, times, axis=0))
    once = KSubspaces(4, random_state=0).fit(X, sample_weight=times)
    twice = KSubspaces(4, random_state=0).fit(copies)
    assert np.allclose(once.transform(X), twice.transform(X), rtol=1e-7, atol=1e-9)
    assert once.inertia_ == pytest.approx(twice.inertia_, rel=1e-9)


@pytest.mark.parametrize("scale", [1e-25, 1e25])
def test_float32_of_extreme_size(scale):
    X, y, _ = make_union_of_subspaces(120, 8, 2, 3, noise=0.05, affine=True, random_state=0)
    model = KSubspaces(3, n_dims=2, random_state=0).fit((X * scale).astype(np.float32))
    assert clustering_accuracy(y, model.predict((X * scale).astype(np.float32))) == 1
    out = model.transform((X * scale).astype(np.float32))
    plain = KSubspaces(3, n_dims=2, random_state=0).fit(X)
    # X has entries of size 1, which float32 rounds by 6e-8; distances on the flats themselves are 0.05
    assert np.allclose(np.sort(out / scale, axis=1), np.sort(plain.transform(X), axis=1), rtol=1e-4, atol=1e-5)
    huge = KSubspaces(3, n_dims=2, random_state=0).fit(X * 1e200)
    assert clustering_accuracy(plain.labels_, huge.labels_) == 1  # of starts that end alike, rounding picks one


# Many rows


def large(n=12_000, affine=True):
    return make_union_of_subspaces(n, 12, 3, 4, noise=0.3, affine=affine, random_state=0)


@pytest.mark.parametrize("affine", [False, True])
def test_blocks_do_not_change_the_result(affine):
    X, _, bases = large(affine=affine)
    whole, parts = (
        KSubspaces(4, n_dims=3, affine=affine, n_init=3, batch_size=b, random_state=0).fit(X) for b in ("auto", 701)
    )
    assert np.array_equal(whole.labels_, parts.labels_)
    assert np.allclose(whole.cluster_centers_, parts.cluster_centers_, atol=1e-10)
    assert subspace_recovery_error(whole.bases_, parts.bases_) < 1e-10
    assert subspace_recovery_error(whole.bases_, bases) < 0.05


@pytest.mark.parametrize("affine", [False, True])
def test_streamed_iterations_are_those_of_rows_in_memory(affine, monkeypatch):
    X, _, _ = large(5000, affine)
    X += 0.5 * np.random.default_rng(5).normal(size=X.shape)
    options = {"n_dims": 3, "affine": affine, "n_init": 3, "random_state": 0}
    here = KSubspaces(4, **options).fit(X)
    monkeypatch.setattr(starts, "MOST_ROWS", 2000)
    weights = np.ones(5000)
    weights[:10] = 0
    there = KSubspaces(4, **options).fit(np.vstack([X[:10] * 50, X[10:]]), sample_weight=weights)
    fixed = slow_alternation(X[10:], there.labels_[10:], 4, 3, affine)
    assert np.mean(fixed[0] == there.labels_[10:]) == 1  # a fixed point of the reference
    assert there.inertia_ == pytest.approx(fixed[1])
    assert there.inertia_ <= 1.01 * here.inertia_


# Ensemble


def test_co_association_counts_runs():
    rng = np.random.default_rng(0)
    runs = rng.integers(3, size=(7, 20))
    generator = torch.Generator().manual_seed(0)
    W = co_association([torch.from_numpy(run) for run in runs], 19, generator)
    dense = np.mean([run[:, None] == run for run in runs], 0)
    np.fill_diagonal(dense, 0)
    assert np.allclose(W.toarray(), 2 * dense)  # each entry and its transpose
    few = co_association([torch.from_numpy(run) for run in runs], 4, generator).toarray()
    for i, j in itertools.product(range(20), range(20)):  # what is kept is among the largest of one of its two rows
        kth = [np.sort(dense[r])[-4] for r in (i, j)]
        assert few[i, j] == 0 or dense[i, j] >= min(kth)


def test_ensemble_finds_what_single_runs_find_and_keeps_few_neighbours():
    X, y, _ = make_union_of_subspaces(300, 20, 4, 5, random_state=0)
    model = KSubspaces(5, n_dims=4, affine=False, ensemble=60, random_state=0).fit(X)
    assert clustering_accuracy(y, model.labels_) >= 0.99
    W = model.affinity_matrix_
    assert W.shape == (300, 300)
    assert abs(W - W.T).max() < 1e-12
    assert not W.diagonal().any()
    assert W.nnz <= 2 * 10 * 300
    assert np.array_equal(model.labels_, model.predict(X))
    model.set_params(ensemble=None).fit(X)
    assert not hasattr(model, "affinity_matrix_")


def test_a_batch_leaves_no_graph_of_a_former_fit():
    X, _, _ = make_union_of_subspaces(60, 10, 2, 3, random_state=0)
    model = KSubspaces(3, n_dims=2, affine=False, ensemble=10, random_state=0).partial_fit(X)
    assert model.affinity_matrix_.shape == (60, 60)  # the first batch makes the start
    model.partial_fit(X[:20])
    assert len(model.labels_) == 20
    assert not hasattr(model, "affinity_matrix_")
    model.fit(X).partial_fit(X[:20])
    assert not hasattr(model, "affinity_matrix_")


def test_ensemble_with_copies_and_rows_without_weight():
    X, _, _ = make_union_of_subspaces(60, 10, 2, 3, random_state=0)
    weights = np.ones(63)
    weights[5] = 0
    model = KSubspaces(3, n_dims=2, affine=False, ensemble=20, random_state=0).fit(np.vstack([X, X[:3]]), None, weights)
    W = model.affinity_matrix_.toarray()
    assert W.shape == (63, 63)
    assert np.array_equal(W[:3], W[60:])
    assert not W[5].any()


# Rows that stand several times, and clusters without rows


@pytest.mark.parametrize("n_dims", ["auto", 1, 3])
def test_fewer_distinct_rows_than_clusters_are_warned_of(n_dims):
    rows = np.random.default_rng(0).normal(size=(3, 6))
    X = np.repeat(rows, 20, axis=0)
    with pytest.warns(ConvergenceWarning, match=r"clusters found, [123], is smaller than n_clusters=5"):
        model = KSubspaces(5, n_dims=n_dims, random_state=0).fit(X)
    assert np.array_equal(model.labels_, np.repeat(model.labels_[::20], 20))
    assert np.array_equal(model.predict(X), model.labels_)


@pytest.mark.parametrize("affine", [False, True])
def test_equal_rows_have_equal_labels_wherever_they_lie(affine):
    """Rows on several flats at once: their distances are rounding, which differs from place to place in a block."""
    rng = np.random.default_rng(0)
    X = np.outer(rng.normal(size=40), rng.normal(size=9))  # one line, on which all flats can lie
    X = np.vstack([X] * 5)[rng.permutation(200)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = KSubspaces(4, n_dims=2, affine=affine, random_state=0).fit(X)
    place = np.unique(X, axis=0, return_inverse=True)[1].ravel()
    for labels in (model.labels_, model.predict(X)):
        assert len({(k, label) for k, label in zip(place, labels)}) == 40


@pytest.mark.parametrize("copies", [[1.0, 1.0], [1.0, -2.0, 0.5]])
def test_the_start_from_a_graph_stands_copies(copies):
    """Coded by its copies a row would need no other, and the graph would fall into as many pieces as rows."""
    X, y, _ = make_union_of_subspaces(120, 15, 3, 3, random_state=0)
    rows = torch.from_numpy(np.concatenate([factor * X for factor in copies]))
    labels = starts.spectral_start(rows, 3, torch.Generator().manual_seed(0))
    assert clustering_accuracy(np.tile(y, len(copies)), labels.numpy()) >= 0.99


@pytest.mark.parametrize("more", ["zeros", "twice", "rare"])
def test_dimension_is_found_among_columns_that_add_none(more):
    X, y, _ = make_union_of_subspaces(300, 20, 3, 3, noise=0.2, affine=True, random_state=0)
    rng = np.random.default_rng(0)
    few = np.where(rng.random((300, 25)) < 0.01, rng.normal(size=(300, 25)), 0)
    wide = np.c_[X, {"zeros": np.zeros((300, 25)), "twice": X, "rare": few}[more]]
    model = KSubspaces(3, random_state=0).fit(wide)
    assert model.n_dims_.tolist() == [3] * 3
    assert clustering_accuracy(y, model.labels_) >= 0.99


# Batches


@pytest.mark.parametrize("affine", [False, True])
def test_partial_fit_comes_near_fit(affine):
    X, y, _ = make_union_of_subspaces(3000, 20, 3, 4, noise=0.1, affine=affine, random_state=0)
    stream = KSubspaces(4, n_dims=3, affine=affine, random_state=0)
    for batch in np.array_split(X, 15):
        stream.partial_fit(batch)
    whole = KSubspaces(4, n_dims=3, affine=affine, random_state=0).fit(X)
    assert stream.n_iter_ == 15
    assert len(stream.labels_) == 200
    assert -stream.score(X) < 1.02 * whole.inertia_
    assert clustering_accuracy(y, stream.predict(X)) > 0.99


@pytest.mark.parametrize("affine", [False, True])
def test_partial_fit_is_exact_while_the_sketch_holds_everything(affine):
    """With one cluster and 2 * n_dims + 8 >= n_features nothing is cut off: batches add up to the whole."""
    X = np.random.default_rng(0).normal(size=(400, 10)) @ np.diag(np.arange(10, 0, -1.0)) + 3
    weights = np.random.default_rng(1).integers(0, 3, size=400).astype(float)
    stream = KSubspaces(1, n_dims=9, affine=affine, random_state=0)
    for rows in np.array_split(np.arange(400), 4):
        stream.partial_fit(X[rows], sample_weight=weights[rows])
    whole = KSubspaces(1, n_dims=9, affine=affine, random_state=0).fit(X, sample_weight=weights)
    assert np.allclose(stream.cluster_centers_, whole.cluster_centers_, atol=1e-10)
    # The first batch keeps nine of ten directions, so the smallest one lags behind: no more than its share.
    assert -stream.score(X, sample_weight=weights) < 1.05 * whole.inertia_


def test_partial_fit_goes_on_from_fit():
    X, y, _ = make_union_of_subspaces(600, 20, 3, 4, noise=0.1, unit_norm=True, random_state=0)
    model = KSubspaces(4, n_dims=3, affine=False, random_state=0).fit(X[:300])
    before = -model.score(X[300:])
    model.partial_fit(X[300:])
    assert -model.score(X[300:]) < before
    assert clustering_accuracy(y, model.predict(X)) == 1


# Refusals


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"n_dims": 5}, r"n_dims=5 is too large for X with n_features=5. Pass at most 4, or 'auto'"),
        ({"n_dims": [1, 2]}, r"names 2 dimensions for n_clusters=3. Pass one for each"),
        ({"n_dims": [1, 2, 0]}, r"must hold ints above 0"),
        ({"n_dims": [1, 2, 5]}, r"too large for X"),
        ({"n_clusters": 41}, r"n_samples=40 should be >= n_clusters=41. Lower n_clusters or add data"),
        ({"n_dims": "some"}, r"The 'n_dims' parameter of KSubspaces"),
    ],
)
def test_refusals_name_the_cure(params, message):
    X = np.random.default_rng(0).normal(size=(40, 5))
    for method in ("fit", "partial_fit"):
        with pytest.raises(ValueError, match=message):
            getattr(KSubspaces(**{"n_clusters": 3, **params}), method)(X)


def test_weights_must_leave_enough_rows():
    X = np.random.default_rng(0).normal(size=(10, 4))
    weights = np.r_[1.0, 1.0, np.zeros(8)]
    with pytest.raises(ValueError, match="n_samples=2 of positive weight should be >= n_clusters=3"):
        KSubspaces(3).fit(X, sample_weight=weights)


def test_too_few_iterations_are_named():
    X = np.random.default_rng(0).normal(size=(300, 6))
    with pytest.warns(ConvergenceWarning, match="KSubspaces stopped at max_iter=2"):
        KSubspaces(4, n_dims=2, max_iter=2, random_state=0).fit(X)


def test_weights_whose_sum_overflows():
    X = np.random.default_rng(0).normal(size=(30, 4))
    with pytest.raises(ValueError, match=r"sample_weight has values up to 1e\+308, whose sum overflows"):
        KSubspaces(2, n_dims=1).fit(X, sample_weight=np.full(30, 1e308))
