"""GrassmannClassifier: its steps against the formulas, a slow fit in numpy, subspaces that lines cannot separate."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import recall_score
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch.callbacks import Callback
from torch import nn

from sklowrank.neural import GrassmannClassifier
from sklowrank.neural import _grassmann_solver as solver
from sklowrank.neural import _grassmannian as grassmannian

X, y = load_digits(return_X_y=True)
A, B, a, b = train_test_split(X / 16, y, train_size=600, stratify=y, random_state=0)


def drawn(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def projectors(S):
    return S @ np.swapaxes(S, 1, 2)


def unit(Z):
    return Z / np.linalg.norm(Z, axis=1, keepdims=True)


def clafic(rows, labels, k):
    """The leading right singular vectors of each class's unit rows, as columns."""
    return np.stack([np.linalg.svd(unit(rows[labels == c]), full_matrices=False)[2][:k].T for c in np.unique(labels)])


def fast(*args, **settings):
    return GrassmannClassifier(*args, **{"max_iter": 5, "random_state": 0, **settings})


# Steps


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("length", [1e-3, 0.7, 4.0])
def test_a_step_is_the_geodesic_of_the_thin_decomposition(k, length):
    S = grassmannian.orthonormal(drawn(5, 9, k))
    V = grassmannian.project_out(S, drawn(5, 9, k, seed=1))
    U, s, Wh = np.linalg.svd(V.numpy(), full_matrices=False)
    cos, sin = np.cos(length * s)[:, None], np.sin(length * s)[:, None]
    expected = ((S.numpy() @ np.swapaxes(Wh, 1, 2)) * cos - U * sin) @ Wh
    moved = grassmannian.geodesic_step(S, V, length)
    np.testing.assert_allclose(moved, expected, atol=1e-12)
    np.testing.assert_allclose(moved.mT @ moved, torch.eye(k).double().expand(5, k, k), atol=1e-12)


def test_a_step_along_nothing_stays():
    S = grassmannian.orthonormal(drawn(2, 6, 3))
    np.testing.assert_allclose(grassmannian.geodesic_step(S, torch.zeros_like(S), 0.3), S, atol=1e-14)


def test_orthonormal_bases_keep_their_directions_and_columns_of_zeros():
    S = grassmannian.orthonormal(drawn(4, 7, 3))
    np.testing.assert_allclose(grassmannian.orthonormal(S), S, atol=1e-14)
    S[1, :, 2] = 0
    S[2, :, 1:] = 0
    again = grassmannian.orthonormal(S)
    assert torch.equal(again == 0, S == 0)
    np.testing.assert_allclose(again, S, atol=1e-14)


@pytest.mark.parametrize("retraction", ["geodesic", "qr"])
def test_the_optimizer_finds_the_leading_eigenvectors(retraction):
    Q, _ = torch.linalg.qr(drawn(8, 8))
    values = torch.tensor([8.0, 7, 6, 2, 1.5, 1, 0.5, 0.1], dtype=torch.float64)
    M = (Q * values) @ Q.T
    S = nn.Parameter(grassmannian.orthonormal(drawn(1, 8, 3, seed=2)))
    group = {"params": [S], "subspaces": True}
    optimizer = grassmannian.GrassmannSGD([group], lr=0.03, momentum=0.8, retraction=retraction)
    for _ in range(150):
        optimizer.zero_grad()
        (-(S.mT @ M @ S).diagonal(dim1=1, dim2=2).sum() / 2).backward()
        optimizer.step()
    found = S.detach()[0]
    np.testing.assert_allclose(found @ found.T, Q[:, :3] @ Q[:, :3].T, atol=1e-6)


def test_ordinary_parameters_take_the_steps_of_sgd():
    both = []
    for make in (torch.optim.SGD, grassmannian.GrassmannSGD):
        w = nn.Parameter(drawn(4).clone())
        optimizer = make([w], lr=0.1, momentum=0.9, weight_decay=0.01)
        for step in range(5):
            optimizer.zero_grad()
            (w.square().square().sum() + step * w.sum()).backward()
            optimizer.step()
        both.append(w.detach())
    np.testing.assert_allclose(*both, rtol=1e-12)


# The fit


def slow_fit(rows, labels, k, epochs, lr=0.1, momentum=0.9, gamma=25.0):
    """Full batches: the start, the gradient of the loss, the geodesics by the thin decomposition, a class at a time."""
    U, S = unit(rows), clafic(rows, labels, k)
    buffers = np.zeros_like(S)
    for epoch in range(epochs):
        rate = lr * (1 + np.cos(np.pi * epoch / epochs)) / 2
        Z = np.einsum("nd,cdk->nck", U, S)
        lengths = np.linalg.norm(Z, axis=2)
        P = np.exp(gamma * (lengths - lengths.max(1, keepdims=True)))
        P /= P.sum(1, keepdims=True)
        P[np.arange(len(U)), labels] -= 1
        for c in range(len(S)):
            gradient = gamma / len(U) * (U * (P[:, c] / lengths[:, c])[:, None]).T @ Z[:, c]
            step = gradient + momentum * buffers[c]
            buffers[c] = step - S[c] @ (S[c].T @ step)
            W, s, Vh = np.linalg.svd(buffers[c], full_matrices=False)
            S[c] = (S[c] @ Vh.T * np.cos(rate * s) - W * np.sin(rate * s)) @ Vh
    return S


def test_the_fit_is_that_of_numpy():
    rows, labels = A[a < 4], a[a < 4]
    model = fast(3, batch_size=len(rows), max_iter=12).fit(rows, labels)
    expected = slow_fit(rows, labels, 3, 12)
    assert np.abs(projectors(clafic(rows, labels, 3)) - projectors(expected)).max() > 0.03  # it has moved
    np.testing.assert_allclose(projectors(model.subspaces_), projectors(expected), atol=1e-4)


def test_scores_are_gamma_times_the_projected_lengths_and_depend_on_the_subspaces_alone():
    model = fast(3, gamma=10.0).fit(A, a)
    scores = model.decision_function(B)
    expected = 10 * np.linalg.norm(np.einsum("nd,cdk->nck", unit(B), model.subspaces_), axis=2)
    np.testing.assert_allclose(scores, expected, atol=1e-12)
    np.testing.assert_allclose(model.predict_proba(B).sum(1), 1)
    np.testing.assert_allclose(np.exp(model.predict_log_proba(B)), model.predict_proba(B))
    R = np.linalg.qr(np.random.default_rng(0).normal(size=(10, 3, 3)))[0]
    model.subspaces_ = model.subspaces_ @ R
    np.testing.assert_allclose(model.decision_function(B), scores, atol=1e-12)


def test_the_start_is_that_of_the_classes_rows():
    model = fast(4, learning_rate=1e-12, max_iter=1).fit(A, a)
    np.testing.assert_allclose(projectors(model.subspaces_), projectors(clafic(A, a, 4)), atol=1e-5)
    few = A[
        np.r_[np.flatnonzero(a == 0)[:40], np.flatnonzero(a == 1), np.flatnonzero(a == 1)]
    ]  # fewer rows than columns, and more
    labels = np.repeat([0, 1], [40, len(few) - 40])
    model = fast(4, learning_rate=1e-12, max_iter=1).fit(few, labels)
    np.testing.assert_allclose(projectors(model.subspaces_), projectors(clafic(few, labels, 4)), atol=1e-5)


def test_training_pays_where_subspaces_have_few_dimensions():
    for k, gain in ((1, 0.03), (2, 0.02)):
        start = clafic(A, a, k)
        untrained = np.linalg.norm(np.einsum("nd,cdk->nck", unit(B), start), axis=2).argmax(1)
        assert fast(k, max_iter=40).fit(A, a).score(B, b) > np.mean(untrained == b) + gain


def test_subspaces_with_signs_at_random_are_recovered_where_lines_and_neighbours_fail():
    rng = np.random.default_rng(0)
    bases = np.linalg.qr(rng.normal(size=(4, 30, 3)))[0]
    labels = np.arange(400) % 4
    rows = np.einsum("ndk,nk->nd", bases[labels], rng.normal(size=(400, 3))) + 0.15 * rng.normal(size=(400, 30))
    train, test, train_y, test_y = rows[:200], rows[200:], labels[:200], labels[200:]
    model = fast(3, max_iter=20, add_bias=False).fit(train, train_y)
    assert model.score(test, test_y) > 0.95
    assert model.score(test, test_y) > KNeighborsClassifier(1).fit(train, train_y).score(test, test_y) + 0.05
    assert LogisticRegression().fit(train, train_y).score(test, test_y) < 0.45
    assert np.linalg.norm(projectors(model.subspaces_) - projectors(bases), 2, axis=(1, 2)).max() < 0.5


def test_a_row_and_its_negative_are_told_apart_by_the_constant_coordinate_alone():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 600)
    rows = rng.normal(size=(600, 6)) + np.outer(2 * labels - 1, np.full(6, 1.5))
    fits = {add: fast(1, add_bias=add).fit(rows[:300], labels[:300]) for add in (True, False, "auto")}
    assert fits[True].score(rows[300:], labels[300:]) > 0.95
    assert fits[False].score(rows[300:], labels[300:]) < 0.65
    assert fits["auto"].subspaces_.shape == fits[True].subspaces_.shape == (2, 7, 1)
    assert np.allclose(fits[False].decision_function(-rows), fits[False].decision_function(rows), atol=1e-12)


def opposite_rows(kind, rng, n=600):
    """Rows of four classes, in each of which a row is as frequent as its negative."""
    labels = np.arange(n) % 4
    if kind == "lines":
        rows = rng.choice([-1, 1], size=(n, 1)) * rng.normal(size=(4, 12))[labels] + 0.5 * rng.normal(size=(n, 12))
    else:
        phases = np.linspace(0, 1, 64) + rng.random((n, 1))
        rows = np.sin(2 * np.pi * np.array([3, 5, 8, 9])[labels][:, None] * phases) + 0.7 * rng.normal(size=(n, 64))
    return rows, labels


@pytest.mark.parametrize("kind", ["lines", "waves"])
def test_no_constant_coordinate_where_a_row_and_its_negative_are_of_one_class(kind):
    rows, labels = opposite_rows(kind, np.random.default_rng(0))
    fits = {add: fast(1, add_bias=add).fit(rows[:300], labels[:300]) for add in (True, False, "auto")}
    scores = {add: model.score(rows[300:], labels[300:]) for add, model in fits.items()}
    assert fits["auto"].subspaces_.shape == fits[False].subspaces_.shape
    assert scores["auto"] == scores[False] > scores[True] + 0.3
    for same in (sp.csr_array(rows[:300]), 1e25 * rows[:300], rows[:300, ::-1]):
        assert fast(1).fit(same, labels[:300]).subspaces_.shape[1] == rows.shape[1]
    shifted = fast(1).fit(rows[:300] + 3, labels[:300])
    assert shifted.subspaces_.shape[1] == rows.shape[1] + 1


def test_the_constant_coordinate_stays_where_nothing_speaks_against_it():
    rng = np.random.default_rng(0)
    rows, labels = rng.normal(size=(300, 5)), np.arange(300) % 3  # noise
    assert fast(1).fit(rows, labels).subspaces_.shape[1] == 6
    assert fast(5).fit(rows, labels).subspaces_.shape[1:] == (6, 5)  # as many dimensions as columns
    assert fast(1).fit(rows[:3], labels[:3]).subspaces_.shape[1] == 6
    rows[:, 0] += labels - 1
    assert fast(2).fit(rows, labels).subspaces_.shape[1] == 6
    rows, labels = opposite_rows("lines", rng)
    first = fast(1).partial_fit(rows[:8], np.zeros(8), classes=range(4))  # one class alone
    assert first.subspaces_.shape[1] == 13


def test_as_accurate_as_logistic_regression_on_a_standardised_table():
    rows, labels = load_breast_cancer(return_X_y=True)
    found = []
    for model in (fast(1, max_iter=20), LogisticRegression()):
        pipe = make_pipeline(StandardScaler(), model)
        found.append(pipe.fit(rows[::2], labels[::2]).score(rows[1::2], labels[1::2]))
    assert found[0] > found[1] - 0.015


# Invariances


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("scale", [1e-25, 1e25])
def test_the_scale_of_the_table_changes_nothing(signed, scale):
    rows = A - 0.3 * signed
    model, there = fast(2).fit(rows, a), fast(2).fit(rows * scale, a)
    np.testing.assert_allclose(there.predict_proba(rows * scale), model.predict_proba(rows), atol=1e-4)
    assert there.scale_ == pytest.approx(scale * model.scale_)


def test_the_lengths_of_rows_change_nothing_without_a_constant_coordinate():
    lengths = 10.0 ** np.random.default_rng(0).uniform(-30, 30, len(A))[:, None]
    model, there = fast(2).fit(A, a), fast(2).fit(A * lengths, a)
    np.testing.assert_allclose(there.decision_function(B), model.decision_function(B), atol=1e-4)
    np.testing.assert_allclose(model.decision_function(7 * B), model.decision_function(B), atol=1e-10)


@pytest.mark.parametrize("sizes", [(), (8,)])
def test_the_order_of_rows_and_columns_changes_nothing_in_full_batches(sizes):
    order = np.random.default_rng(0).permutation(len(A))
    model, there = (fast(2, sizes, batch_size=len(A)) for _ in range(2))
    model.fit(A, a)
    np.testing.assert_allclose(there.fit(A[order], a[order]).predict_proba(B), model.predict_proba(B), atol=1e-3)
    if not sizes:
        columns = np.random.default_rng(1).permutation(64)
        there.fit(A[:, columns], a)
        np.testing.assert_allclose(there.predict_proba(B[:, columns]), model.predict_proba(B), atol=1e-3)


def test_blocks_of_rows_change_nothing(monkeypatch):
    model = fast(2, (8,)).fit(A, a)
    before = model.predict_proba(B)
    monkeypatch.setattr("sklowrank._core.blocks._AUTO_BYTES", 4096)
    np.testing.assert_allclose(model.predict_proba(B), before, atol=1e-12)
    np.testing.assert_allclose(fast(2, (8,)).fit(A, a).predict_proba(B), before, atol=1e-6)


def test_sparse_rows_are_fitted_as_dense_ones():
    for rows, new in ((A, B), (A - (A > 0.9), B - (B > 0.9))):  # without and with the constant coordinate
        model, there = fast(2).fit(rows, a), fast(2).fit(sp.csr_matrix(rows), a)
        np.testing.assert_allclose(there.decision_function(sp.csr_array(new)), model.decision_function(new), atol=1e-4)
        np.testing.assert_allclose(there.transform(sp.coo_matrix(new)), model.transform(new), atol=1e-12)


def test_float32_stays():
    model = fast(2).fit(A.astype(np.float32), a)
    assert model.subspaces_.dtype == model.transform(B.astype(np.float32)).dtype == np.float32
    np.testing.assert_allclose(model.decision_function(B), fast(2).fit(A, a).decision_function(B), atol=2e-3)


@pytest.mark.cuda
@pytest.mark.parametrize("settings", [{}, {"hidden_layer_sizes": (16,)}, {"retraction": "qr"}])
def test_the_gpu_agrees_with_the_cpu(settings):
    here, there = (fast(4, device=device, **settings).fit(A, a) for device in ("cpu", "cuda"))
    np.testing.assert_allclose(there.predict_proba(B), here.predict_proba(B), atol=5e-3)
    assert next(iter(there.network("cuda").parameters()), torch.empty(0, device="cuda")).device.type == "cuda"


# Options


def test_random_starts_and_both_retractions_end_alike():
    scores = [fast(8, max_iter=40, **s).fit(A, a).score(B, b) for s in ({}, {"init": "random"}, {"retraction": "qr"})]
    assert max(scores) - min(scores) < 0.015
    assert min(scores) > 0.96


def test_a_dimension_for_each_class():
    dims = [1, 2, 3, 1, 2, 3, 1, 2, 3, 4]
    for settings in ({}, {"retraction": "qr"}, {"init": "random"}):
        model = fast(dims, **settings).fit(A, a)
        assert (model.subspaces_ != 0).any(1).sum(1).tolist() == dims
        for S, k in zip(model.subspaces_, dims):
            np.testing.assert_allclose(S.T @ S, np.diag(np.arange(4) < k), atol=1e-10)
        assert model.partial_fit(A[:64], a[:64]).score(B, b) > 0.9


def test_classes_with_fewer_rows_than_dimensions():
    few = np.r_[np.flatnonzero(a == 0)[:1], np.flatnonzero(a == 1)]
    model = fast(5, max_iter=1).fit(A[few], a[few])
    np.testing.assert_allclose(projectors(model.subspaces_)[0] @ unit(A[few[:1]])[0], unit(A[few[:1]])[0], atol=0.1)
    for S in model.subspaces_:
        np.testing.assert_allclose(S.T @ S, np.eye(5), atol=1e-10)


def test_rows_of_zeros_have_no_class():
    model = fast(2).fit(np.vstack([A, np.zeros((1, 64))]), np.r_[a, 3])
    assert not model.decision_function(np.zeros((1, 64))).any()
    np.testing.assert_allclose(model.predict_proba(np.zeros((1, 64))), 0.1)
    assert not model.transform(np.zeros((1, 64))).any()
    assert fast(2, max_iter=1).fit(np.zeros((20, 5)), np.arange(20) % 2).scale_ == 1


def test_two_classes_have_one_score():
    model = fast(2).fit(A[a < 2], np.array(["no", "yes"])[a[a < 2]])
    scores = model.decision_function(B)
    assert scores.shape == (len(B),)
    assert np.array_equal(model.predict(B) == "yes", scores > 0)


def test_weights_of_classes():
    rng = np.random.default_rng(0)
    labels = np.repeat(["often", "rare"], [1000, 100])
    rows = rng.normal(size=(1100, 4)) + 1.5 * (labels == "rare")[:, None]
    found = [
        recall_score(labels, fast(1, class_weight=w).fit(rows, labels).predict(rows), pos_label="rare")
        for w in (None, "balanced", {"often": 1e-4, "rare": 1e4})
    ]
    assert found[0] + 0.05 < found[1] < found[2]
    assert found[2] > 0.95


def test_weights_of_classes_that_a_batch_lacks():
    rng = np.random.default_rng(0)
    labels = np.repeat(["often", "rare"], [1000, 100])
    rows = rng.normal(size=(1100, 4)) + 1.5 * (labels == "rare")[:, None]
    found = []
    for weights in (None, {"often": 1, "rare": 20}):
        model = fast(1, class_weight=weights, learning_rate=0.01)
        for _ in range(10):
            for at in np.array_split(np.arange(1100), 11):  # the last batch is all there is of one class
                model.partial_fit(rows[at], labels[at], classes=["often", "other", "rare"])
        found.append(recall_score(labels == "rare", model.predict(rows) == "rare"))
    assert found[0] + 0.05 < found[1]
    with pytest.raises(ValueError, match="not in class_weight"):
        fast(1, class_weight={"seldom": 2}).fit(rows, labels)


@pytest.mark.parametrize("weights", [(0, 0), (-1, 1), (np.inf, 1), (np.nan, 1)])
def test_weights_of_classes_that_no_loss_has(weights):
    with pytest.raises(ValueError, match=r"class_weight=.*finite numbers >= 0.*Pass other weights"):
        fast(1, class_weight=dict(enumerate(weights))).fit(A[a < 2], a[a < 2])


def test_early_stopping_keeps_the_best_epoch_and_starts_without_the_rows_held_out(monkeypatch):
    seen, plain = [], solver.leading_directions

    def spy(U, count):
        seen.append(len(U))
        return plain(U, count)

    monkeypatch.setattr(solver, "leading_directions", spy)
    model = fast(4, early_stopping=True, n_iter_no_change=2, max_iter=100).fit(A, a)
    assert sum(seen) == len(A) - 60
    assert len(model.loss_curve_) == model.n_iter_ < 100
    short = fast(4, early_stopping=True, n_iter_no_change=99, max_iter=100, tol=0.0).fit(A, a)
    assert short.n_iter_ == 100
    assert min(short.loss_curve_) < short.loss_curve_[-1]
    assert short.score(B, b) > 0.95


def test_warm_start_goes_on():
    model = fast(4, (16,), warm_start=True).fit(A, a)
    first = model.loss_curve_[-1]
    assert model.fit(A, a).loss_curve_[0] < 1.5 * first
    assert model.loss_curve_[-1] < first
    for former, other in (
        ({"hidden_layer_sizes": (16,)}, (8,)),
        ({"subspace_dim": 4}, 3),
        ({"add_bias": "auto"}, True),
    ):
        with pytest.raises(ValueError, match=r"does not suit .* warm_start=False"):
            model.set_params(**dict.fromkeys(former, other)).fit(A, a)
        model.set_params(**former)
    with pytest.raises(ValueError, match=r"label 99.*not among the classes"):
        model.fit(A, np.where(a == 3, 99, a))


def test_batches_come_one_after_the_other():
    model, stream = fast(3, (32,)), np.array_split(np.arange(len(A)), 3)
    model.partial_fit(A[stream[0]], a[stream[0]], classes=np.arange(10))
    first = model.score(B, b)
    momentum = model._fitted["optimizer"][0]["momentum"]
    for _ in range(10):
        for part in stream:
            model.partial_fit(A[part], a[part])
    assert model.score(B, b) > max(first, 0.8)
    assert model.n_iter_ == len(model.loss_curve_) == 31
    assert np.abs(model._fitted["optimizer"][0]["momentum"] - momentum).max() > 0
    assert model._fitted["optimizer"][0]["n_steps"] == 31 * 4


def test_classes_without_rows_in_the_first_batch():
    few = np.flatnonzero(a < 5)
    model = fast(3).partial_fit(A[few], a[few], classes=np.arange(10))
    for _ in range(10):
        model.partial_fit(A, a)
    assert model.score(B, b) > 0.93
    with pytest.raises(ValueError, match=r"label 11.*not among the classes"):
        model.partial_fit(A[:9], np.full(9, 11))
    with pytest.raises(ValueError, match="classes must be passed on the first call"):
        fast().partial_fit(A, a)
    with pytest.raises(ValueError, match="class_weight='balanced' needs all rows"):
        fast(class_weight="balanced").partial_fit(A, a, classes=np.arange(10))


# Networks in front


def test_a_network_in_front():
    model = fast(2, (64,), max_iter=20).fit(A, a)
    assert model.score(B, b) > 0.95
    assert {name: w.shape for name, w in model.weights_.items()} == {"0.weight": (64, 64), "0.bias": (64,)}
    features = model.transform(B)
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1)
    scores = 25 * np.linalg.norm(np.einsum("nd,cdk->nck", features, model.subspaces_), axis=2)
    np.testing.assert_allclose(model.decision_function(B), scores, atol=1e-12)


@pytest.mark.parametrize("settings", [{}, {"hidden_layer_sizes": (8,)}, {"hidden_layer_sizes": (8,), "add_bias": True}])
def test_the_module_computes_transform(settings):
    rows = A * 1e-3 - 2e-4
    model = fast(2, **settings).fit(rows, a)
    net = model.network()
    found = net(torch.from_numpy(rows).float()).detach().numpy()
    np.testing.assert_allclose(found, model.transform(rows), atol=1e-5)
    assert found.shape[1] == model.subspaces_.shape[1] == len(model.get_feature_names_out())


class Own(nn.Module):
    def __init__(self, n_features, width=12):
        super().__init__()
        self.layer, self.seen = nn.Linear(n_features, width), 0.0

    def forward(self, x):
        self.seen = max(self.seen, float(x.detach().abs().max()))
        return torch.tanh(self.layer(x))


def own():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Own(64)


@pytest.mark.parametrize("module", [Own, own(), nn.Sequential()])
def test_a_module_of_ones_own_sees_the_rows_as_they_are(module):
    state = torch.get_rng_state()
    model = fast(2, module=module, max_iter=20).fit(A, a)
    assert torch.equal(state, torch.get_rng_state())
    assert model.score(B, b) > 0.8
    assert model.scale_ == 1
    features = model.network()(torch.from_numpy(B).float()).detach().numpy()
    np.testing.assert_allclose(features, model.transform(B), atol=1e-5)
    again = fast(2, module=module, max_iter=20).fit(A, a)
    assert np.array_equal(again.predict_proba(B), model.predict_proba(B))


def test_layers_that_normalise_a_batch_train_where_one_row_is_left_over():
    module = nn.Sequential(nn.BatchNorm1d(64), nn.Linear(64, 12))
    assert fast(2, module=module).fit(A[:65], a[:65]).n_iter_ == 5


class Rates(Callback):
    def on_epoch_begin(self, net, **kwargs):
        groups = net.optimizer_.param_groups
        RATES.append({bool(g["subspaces"]): (g["lr"], g["weight_decay"]) for g in groups})


RATES: list = []


def test_rates_fall_along_a_cosine_and_the_network_has_a_tenth():
    params = {"callbacks": [("rates", Rates())], "optimizer__weight_decay": 0.5}
    RATES.clear()
    model = fast(2, (8,), max_iter=4, net_params=params).fit(A, a)
    cosine = (1 + np.cos(np.pi * np.arange(4) / 4)) / 2
    np.testing.assert_allclose([r[True][0] for r in RATES], 0.1 * cosine)
    np.testing.assert_allclose([r[False][0] for r in RATES], 0.01 * cosine)
    assert RATES[0][False][1] == 0.5
    lighter = fast(2, (8,), max_iter=4).fit(A, a).weights_["0.weight"]
    assert np.linalg.norm(model.weights_["0.weight"]) < np.linalg.norm(lighter)
    RATES.clear()
    model.partial_fit(A, a)
    assert RATES == [{True: (0.1, 0.5), False: (0.1 * 0.1, 0.5)}]


# Refusals


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"subspace_dim": 64}, r"subspace_dim=64 has to be below the width 64 .* n_features=64.*Pass at most 63"),
        ({"subspace_dim": [1, 2]}, r"subspace_dim=\[1, 2\] .*one for each of the 10 classes"),
        ({"subspace_dim": [1.5] * 10}, "has to be an integer"),
        ({"subspace_dim": [0] * 10}, "has to be an integer"),
        ({"init": "class_svd", "hidden_layer_sizes": (8,)}, "init='class_svd' is for the rows themselves"),
        ({"init": "class_svd", "module": Own}, "init='class_svd' is for the rows themselves"),
        ({"net_params": {"optimizer": torch.optim.Adam}}, "learning_rate, momentum and 'optimizer__weight_decay'"),
        ({"net_params": {"optimizer__lr": 1.0}}, "'optimizer__lr'.*cannot be set"),
        ({"learning_rate": 1e30, "hidden_layer_sizes": (8,)}, "in training. Lower learning_rate"),
    ],
)
def test_what_cannot_be_is_refused(settings, match):
    with pytest.raises(ValueError, match=match):
        fast(**settings).fit(A, a)


def test_one_class_and_one_column():
    with pytest.raises(ValueError, match="only one class"):
        fast().fit(A, np.ones(len(A)))
    rows, labels = np.r_[1:40.0][:, None], np.r_[1:40] > 20
    assert fast(max_iter=40).fit(rows, labels).score(rows, labels) > 0.9
    with pytest.raises(ValueError, match=r"n_features=1.*add_bias=True"):
        fast(add_bias=False).fit(rows, labels)
