"""Manifold linearizing and clustering: what the stages do, what predictions owe, what the user may change."""

import pickle
import re
import warnings
from functools import partial

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.callback import ProgressBar, ScoringMonitor
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits, make_blobs, make_moons
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import check_estimator
from skorch.callbacks import Callback, EarlyStopping
from torch import nn

from sklowrank._core.fitted import options
from sklowrank._math.linalg import unit_rows
from sklowrank._nets.architecture import build
from sklowrank._nets.randomness import Randomness, fixed_randomness
from sklowrank.cluster import ManifoldLinearizingClustering
from sklowrank.cluster import _manifold_linearizing_solver as solver
from sklowrank.cluster import _positive_pairs as positive_pairs
from sklowrank.metrics import clustering_accuracy
from tests.test_common import Interrupt, Stop

QUICK = {"n_epochs": (5, 2), "random_state": 0, "hidden_layer_sizes": (32,)}


def model(n_clusters=4, **params):
    return ManifoldLinearizingClustering(n_clusters, **{**QUICK, **params})


@pytest.fixture(scope="module")
def digits():
    return load_digits(return_X_y=True)


@pytest.fixture(scope="module")
def trained(digits):
    """Half of the digits, by defaults."""
    X, _ = digits
    return ManifoldLinearizingClustering(10, random_state=0).fit(X[::2])


@pytest.fixture(scope="module")
def blobs():
    return make_blobs(200, 6, centers=4, cluster_std=0.5, random_state=0)[0]


def mean_cosines(Z, labels):
    G = np.abs(Z @ Z.T)
    same = labels[:, None] == labels
    return G[~same].mean(), G[same].mean()


# What the method does


def test_digits_are_clustered_better_than_by_k_means(trained, digits):
    X, y = digits
    plain = clustering_accuracy(y[::2], KMeans(10, n_init=10, random_state=0).fit_predict(X[::2]))
    assert clustering_accuracy(y[::2], trained.labels_) >= max(0.85, plain + 0.05)


def test_new_rows_are_clustered_nearly_as_well(trained, digits):
    X, y = digits
    names = [np.bincount(y[::2][trained.labels_ == k]).argmax() for k in range(10)]
    seen = np.mean(np.take(names, trained.labels_) == y[::2])
    new = np.mean(np.take(names, trained.predict(X[1::2])) == y[1::2])
    assert new >= seen - 0.06


def test_moons_are_told_apart():
    X, y = make_moons(400, noise=0.05, random_state=0)
    settings = {"view_noise": 0.02, "n_neighbors": 10, "batch_size": 128, "random_state": 0}
    found = ManifoldLinearizingClustering(2, n_epochs=(250, 20), **settings).fit(X)
    assert clustering_accuracy(y, found.labels_) > 0.95
    assert clustering_accuracy(y, KMeans(2, n_init=10, random_state=0).fit_predict(X)) < 0.9


def test_stage_two_lowers_the_rate_of_the_clusters_and_keeps_that_of_all(trained, digits):
    R, R_c = trained.coding_rates_.T
    assert len(R) == 81  # 27 epochs of three batches: 80 steps at least
    assert R_c[-3:].mean() < 0.85 * R_c[:3].mean()
    assert R[-3:].mean() == pytest.approx(R[:3].mean(), rel=0.05)
    one_direction = 0.5 * np.log(1 + 32 / 0.5)
    assert R[-1] > 3 * one_direction  # not collapsed
    between, within = mean_cosines(trained.transform(digits[0][::2]), trained.labels_)
    assert between < 0.3 * within
    lazy = ManifoldLinearizingClustering(10, n_epochs=("auto", 0), random_state=0).fit(digits[0][::2])
    assert lazy.coding_rates_.shape == (0, 2)
    between_lazy, within_lazy = mean_cosines(lazy.transform(digits[0][::2]), lazy.labels_)
    assert between / within < 0.6 * between_lazy / within_lazy


def test_heads_are_copied_after_stage_one(blobs):
    before = model(n_epochs=(5, 0)).fit(blobs).weights_
    assert np.array_equal(before["features.weight"], before["clusters.weight"])
    after = model().fit(blobs).weights_
    assert not np.array_equal(after["features.weight"], after["clusters.weight"])
    stated = problem(torch.from_numpy(blobs))
    net = solver.restored(stated, {**stated_weights(stated), "clusters.weight": torch.zeros(16, 32)}, "cpu")
    state = solver.State(solver.weights_of(net), None, torch.zeros(0, 2), 0)
    state = solver.with_memberships(net, state, stated)
    assert torch.equal(state.weights["clusters.weight"], net.features.weight)
    assert torch.equal(net.clusters.weight, net.features.weight)
    assert state.eta == 0.3


def problem(X, n_clusters=4, **params):
    mean, scale = torch.zeros(2, X.shape[1], dtype=torch.float64)
    found = options(model(n_clusters, **params), solver.Options)
    return solver.clustering_problem(X, mean, scale + 1, found, fixed_randomness())


def stated_weights(stated):
    head = partial(solver.TwoHeads, n_components=stated.n_components)
    return build(stated.architecture, torch.Generator().manual_seed(0), head).state_dict()


def test_stage_two_starts_with_an_optimizer_of_its_own(blobs):
    """Nothing of the first stage's momentum is left: two trainings, two optimizers, with their own learning rates."""
    seen = []

    class Watch(Callback):
        def on_train_begin(self, net, **kwargs):
            seen.append((net.optimizer_.param_groups[0]["lr"], len(net.optimizer_.state)))

    model(net_params={"callbacks": [Watch()]}, learning_rate=(0.01, 0.002)).fit(blobs)
    assert seen == [(0.01, 0), (0.002, 0)]


def test_rates_are_those_of_the_formulas(blobs):
    """Score on one batch, from `transform` and `membership` alone."""
    fitted = model(n_epochs=(20, 2)).fit(blobs)
    Z, G = fitted.transform(blobs), fitted.membership(blobs)
    n, d = Z.shape
    R = np.linalg.slogdet(np.eye(d) + d / (n * 0.5) * Z.T @ Z)[1] / 2
    R_c = np.mean([np.linalg.slogdet(np.eye(d) + d / 0.5 * (Z.T * column) @ Z)[1] / 2 for column in G.T])
    assert fitted.score(blobs) == pytest.approx(R - R_c, rel=1e-3)
    assert 0 < R_c < R


def test_objectives_of_a_batch():
    rng = np.random.default_rng(0)
    Z = rng.normal(size=(12, 4))
    Z = torch.from_numpy(Z / np.linalg.norm(Z, axis=1, keepdims=True))
    mean, agreement = ((Z[:6] + Z[6:]) / 2).numpy(), (Z[:6] * Z[6:]).sum(1).mean()
    rate = np.linalg.slogdet(np.eye(4) + 4 / (6 * 0.5) * mean.T @ mean)[1] / 2
    assert float(solver.feature_objective(Z, 0.5)) == pytest.approx(-rate - 20 * float(agreement))
    loss, rates = solver.rate_objective(Z, Z, 0.4, options(model(membership_penalty=0.3), solver.Options))
    memberships = [solver.project(solver.kernel_of(part, 0.4, "signed"), 10)[0] for part in (Z[:6], Z[6:])]
    G = sum(memberships) / 2
    assert float(loss) == pytest.approx(float(rates[1] - rates[0] + 0.15 * G.square().sum()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_features_without_a_direction_have_finite_gradients(dtype):
    """Of a unit whose ReLU is dead, of two views that are opposite, and of what is zero up to rounding."""
    h = torch.randn(12, 4, generator=torch.Generator().manual_seed(0), dtype=dtype)
    h[[0, 6, 1]] = 0  # both views of a row, and one view of another
    h[8] = -h[2]
    h[3] = torch.finfo(dtype).tiny
    h.requires_grad_()
    Z = unit_rows(h)
    assert bool((Z[[0, 1, 3, 6]] == 0).all())
    lengths = Z.detach().norm(dim=1)
    np.testing.assert_allclose(lengths[[2, 4, 5, 7, 8, 9, 10, 11]].numpy(), 1, rtol=1e-5)
    loss = solver.rate_objective(Z, Z, 0.02, options(model(), solver.Options))[0] + solver.feature_objective(Z, 0.5)
    loss.backward()
    assert bool(h.grad.isfinite().all())
    assert bool((h.grad[[0, 1, 3, 6]] == 0).all())
    assert bool((h.grad[4] != 0).any())


def test_few_rows_on_a_narrow_network_are_clustered():
    """Ten rows on eight units: some rows leave all of them inactive."""
    X = np.random.RandomState(0).uniform(size=(10, 3))
    for seed in range(8):
        fitted = ManifoldLinearizingClustering(hidden_layer_sizes=(8,), n_epochs=(3, 2), random_state=seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            fitted.fit(X)
        assert all(np.isfinite(weight).all() for weight in fitted.weights_.values())
        assert np.isfinite(fitted.transform(X)).all()


def test_weights_that_are_nan_name_the_cure(blobs):
    with pytest.raises(ValueError, match="Lower learning_rate"):
        model(learning_rate=1e38, n_epochs=(2, 2)).fit(blobs)


# Predictions


def test_labels_are_predictions_whatever_the_batch(trained, digits):
    X = digits[0][::2]
    assert np.array_equal(trained.labels_, trained.predict(X))
    rows = np.concatenate([trained.predict(X[i : i + 1]) for i in range(40)])
    assert np.array_equal(rows, trained.labels_[:40])  # batch normalisation does not see the batch
    proba = trained.predict_proba(X)
    np.testing.assert_allclose(proba.sum(1), 1, rtol=1e-12)
    assert np.array_equal(proba.argmax(1), trained.labels_)
    assert set(trained.labels_) == set(range(10))


def test_equal_rows_share_a_label_wherever_they_stand(blobs):
    rng = np.random.default_rng(0)
    X = np.repeat(blobs[:70].round(1), 9, axis=0)[rng.permutation(630)]  # of another number than blocks of products
    fitted = model(7).fit(X)
    for answer in (fitted.labels_, fitted.predict(X), fitted.predict_proba(X), fitted.transform(X)):
        kinds = np.unique(X, axis=0, return_inverse=True)[1]
        first = np.unique(kinds, return_index=True)[1]
        assert np.array_equal(answer, answer[first][kinds])


def test_more_rows_than_are_clustered_by_the_spectrum():
    X, y = make_blobs(4500, 8, centers=3, cluster_std=0.3, random_state=0)
    fitted = model(3, n_epochs=(3, 1)).fit(X)
    assert clustering_accuracy(y, fitted.labels_) > 0.99
    assert np.array_equal(fitted.labels_, fitted.predict(X))
    with pytest.raises(ValueError, match=r"n_samples=22500 should be <= 20000"):
        fitted.membership(np.tile(X, (5, 1)))


def test_attributes(trained):
    assert trained.cluster_centers_.shape == (10, 32)
    np.testing.assert_allclose(np.linalg.norm(trained.cluster_centers_, axis=1), 1, rtol=1e-6)
    assert len(trained.bases_) == 10
    for U in trained.bases_:
        np.testing.assert_allclose(U.T @ U, np.eye(U.shape[1]), atol=1e-5)
    assert 0.02 < trained.eta_ < 0.3
    assert trained.n_iter_ == len(trained.loss_curve_)
    assert trained.n_steps_init_ <= 300
    assert {name.split(".")[0] for name in trained.weights_} == {"trunk", "features", "clusters"}


def test_the_number_of_clusters(trained, digits):
    assert 8 <= trained.estimate_n_clusters(digits[0][::2]) <= 14
    assert trained.estimate_n_clusters(digits[0][::2], [3]) == 3
    for wrong in ([3, 0], [2.5], [True], [], 3, "ab"):
        with pytest.raises(ValueError, match=f"n_clusters={re.escape(repr(wrong))} has to name"):
            trained.estimate_n_clusters(digits[0][:100], wrong)
    with pytest.raises(NotFittedError):
        model().estimate_n_clusters(digits[0], [])
    X, _ = make_blobs(300, 6, centers=4, cluster_std=0.2, random_state=0)
    found = model("auto", n_epochs=(30, 2)).fit(X)
    assert found.n_components_ == 32  # as for ten clusters
    assert found.cluster_centers_.shape[0] == len(set(found.labels_)) == found.predict_proba(X).shape[1]
    assert 3 <= len(set(found.labels_)) <= 12


# Views


def test_views():
    rng = np.random.default_rng(0)
    X = torch.from_numpy(rng.normal(size=(40, 5))).float()
    rows = torch.tensor([3, 17, 8])
    distance = torch.cdist(X, X).fill_diagonal_(torch.inf)
    for positives in ("neighbors", "noise", "mask"):
        views = positive_pairs.make_views(X, positives, 3, 0.0, torch.Generator().manual_seed(0))(rows)
        first, second = views.chunk(2)
        assert torch.equal(first, X[rows])
        if positives == "neighbors":
            place = torch.cdist(second, X).argmin(1)
            assert all(distance[i, j] <= distance[i].sort().values[2] for i, j in zip(rows, place))
        elif positives == "noise":
            assert torch.equal(second, first)
        else:
            assert all(value in X[:, j] for value, j in zip(second.flatten(), np.tile(np.arange(5), 3)))
            assert 0 < int((second != first).sum()) < second.numel()
    noisy = positive_pairs.make_views(X, "noise", 3, 0.5, torch.Generator().manual_seed(0))
    draws = torch.stack([noisy(rows) - torch.cat([X[rows], X[rows]]) for _ in range(300)])
    assert draws.std().item() == pytest.approx(0.5, rel=0.05)
    assert abs((draws[:, :3] * draws[:, 3:]).mean().item()) < 0.02  # the views' noises are independent


def test_views_of_ones_own(blobs):
    seen = []

    def positives(batch, indices, generator):
        seen.append((batch, indices))
        return batch + 0.1 * torch.randn(batch.shape, generator=generator)

    once, again = (model(positives=positives).fit(blobs).labels_ for _ in range(2))
    assert np.array_equal(once, again)
    batch, indices = seen[0]
    X = (blobs - blobs.mean(0)) / np.sqrt(blobs.var(0).mean())
    np.testing.assert_allclose(batch, X[indices], rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match=r"positives gave shape \(200, 2\) for a batch of shape \(200, 6\)"):
        model(positives=lambda batch, indices, generator: batch[:, :2]).fit(blobs)


def test_neighbours_in_random_parts(monkeypatch):
    X = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(positive_pairs, "_NEIGHBOR_ROWS", 20)
    positive_pairs.make_views(X, "neighbors", 18, 0.0, torch.Generator().manual_seed(0))  # more than a part has
    near = positive_pairs._neighbors(X, 3, torch.Generator().manual_seed(0))
    assert near.shape == (50, 3)
    assert not (near == torch.arange(50)[:, None]).any()
    exact = torch.cdist(X, X).fill_diagonal_(torch.inf)
    ranks = [(exact[i] < exact[i, j]).sum() for i in range(50) for j in near[i]]
    assert sum(ranks) < 9 * len(ranks)  # near, if not the nearest; any rows would have 25 on average


@pytest.mark.parametrize(
    ("n_epochs", "n_rows", "batch_size", "expected"),
    [
        ("auto", 100, 100, (300, 1)),
        ("auto", 1797, 256, (43, 7)),
        ("auto", 10_000, 256, (40, 39)),
        ("auto", 100_000, 256, (7, 390)),
        ("auto", 2_000_000, 256, (1, 3000)),
        ("auto", 20_000, 256, (38, 78)),
        (12, 2_000_000, 256, (12, 7812)),
        (0, 100, 100, (0, 1)),
    ],
)
def test_lengths_of_the_stages(n_epochs, n_rows, batch_size, expected):
    assert solver.planned_epochs(n_epochs, n_rows, batch_size, solver.STAGES[0]) == expected


def test_the_second_stage_is_short_however_many_rows_there_are():
    lengths = [
        solver.planned_epochs("auto", n, min(n, 256), solver.STAGES[1]) for n in (100, 1797, 5000, 20_000, 1_000_000)
    ]
    assert all(70 <= n_epochs * n_batches <= 100 for n_epochs, n_batches in lengths)


def test_the_first_stage_ends_where_nothing_is_gained(blobs):
    better, flat = np.linspace(-1, -3, 100).tolist(), [-3.0] * 100
    assert not solver.no_longer_better(better, 1)
    assert solver.no_longer_better(flat, 1)
    assert not solver.no_longer_better(flat[:99], 1)
    assert solver.no_longer_better(flat[:26], 4)  # 26 epochs of 4 batches
    fitted = ManifoldLinearizingClustering(4, hidden_layer_sizes=(32,), random_state=0).fit(blobs)
    assert 100 <= fitted.n_steps_init_ < 300
    assert model(n_epochs=(300, 2)).fit(blobs).n_steps_init_ == 300


# What the user may change


@pytest.mark.parametrize(
    "settings",
    [
        {"kernel": "absolute"},
        {"positives": "noise"},
        {"positives": "mask"},
        {"membership_penalty": 1.0},
        {"assign_labels": "kmeans"},
        {"standardize": "columns"},
        {"standardize": False},
        {"hidden_layer_sizes": (8, 8, 8)},
        {"n_components": 5},
        {"batch_size": 32},
        {"precision": 0.1},
        {"view_noise": 1.0},
        {"n_neighbors": 40},
        {"eta": 1.0},
        {"net_params": {"optimizer__weight_decay": 1.0}},
        {"net_params": {"module__activation": "tanh"}},
        {"net_params": {"module__dropout": 0.3}},
        {"net_params": {"module__batch_norm": False}},
        {"learning_rate": 0.1},
        {"learning_rate": (0.1, 3e-4)},
        {"n_epochs": (5, 9)},
    ],
    ids=lambda settings: "-".join(settings),
)
def test_every_option_does_something(settings, blobs):
    plain, changed = model().fit(blobs), model(**settings).fit(blobs)
    assert len(set(changed.labels_)) > 1
    if settings.keys() <= {"assign_labels"}:  # it decides the last step alone
        assert clustering_accuracy(plain.labels_, changed.labels_) > 0.5
        return
    one, other = plain.membership(blobs[:50]), changed.membership(blobs[:50])
    assert np.abs(one - other).max() > 1e-6


class Residual(nn.Module):
    """A trunk of the user's own."""

    def __init__(self, n_features, dropout=0.0):
        super().__init__()
        self.layer, self.dropout = nn.Linear(n_features, n_features), nn.Dropout(dropout)

    def forward(self, x):
        return x + self.dropout(self.layer(x).relu())


def test_a_network_of_ones_own(blobs):
    own = model(module=Residual, net_params={"module__dropout": 0.2}).fit(blobs)
    assert own.weights_["trunk.layer.weight"].shape == (6, 6)
    assert np.array_equal(own.predict(blobs), pickle.loads(pickle.dumps(own)).predict(blobs))
    assert np.array_equal(own.labels_, clone(own).fit(blobs).labels_)  # dropout draws from the seed
    instance = Residual(6)
    before = instance.layer.weight.clone()
    assert model(module=instance).fit(blobs).predict(blobs).shape == (200,)
    assert torch.equal(before, instance.layer.weight)
    with pytest.raises(ValueError, match=r"has to map \(n, 6\) to \(n, width\)"):
        model(module=nn.Flatten(0)).fit(blobs)


def test_settings_of_skorch(blobs):
    with pytest.raises(ValueError, match=r"'batch_size'.*cannot be set"):
        model(net_params={"batch_size": 3}).fit(blobs)
    stopped = model(
        n_epochs=(50, 2), learning_rate=1e-9, net_params={"callbacks": [EarlyStopping("train_loss", patience=1)]}
    )
    assert stopped.fit(blobs).n_iter_ < 20


def test_batches_keep_the_numbers_of_clusters():
    X, _ = make_blobs(600, 6, centers=4, cluster_std=0.5, random_state=0)
    fitted = model(n_epochs=(30, 2)).fit(X[:200])
    weights, before = fitted.weights_, fitted.predict(X)
    history = len(fitted.coding_rates_)
    for batch in (X[200:400], X[400:]):
        fitted.partial_fit(batch)
        assert len(fitted.labels_) == 200
        assert np.array_equal(fitted.labels_, fitted.predict(batch))
    assert np.mean(fitted.predict(X) == before) > 0.95
    assert not np.array_equal(weights["features.weight"], fitted.weights_["features.weight"])
    assert len(fitted.coding_rates_) == history + 4
    assert fitted.n_iter_ == 32 + 4
    fresh = model().partial_fit(X[:200])
    assert np.array_equal(fresh.labels_, model().fit(X[:200]).labels_)


# Callbacks of scikit-learn


def test_callbacks_see_every_epoch_and_change_nothing(blobs, capsys):
    plain = model(n_epochs=(12, 2)).fit(blobs)
    monitor = ScoringMonitor(scoring={"score": lambda fitted, X, y: fitted.score(X)})
    watched = model(n_epochs=(12, 2)).set_callbacks(monitor, ProgressBar()).fit(blobs, np.zeros(200))
    scores = monitor.get_logs().data_as_pandas["score"].dropna()
    assert len(scores) >= watched.n_iter_ == 14
    assert np.isfinite(scores).all()
    for name, value in plain.weights_.items():
        assert np.array_equal(value, watched.weights_[name])
    assert np.array_equal(plain.labels_, watched.labels_)
    assert "ManifoldLinearizingClustering" in capsys.readouterr().out


@pytest.mark.parametrize("n_epochs_init", [1, 9])
def test_a_callback_stops_the_fit_in_either_stage(n_epochs_init, blobs):
    fitted = model(n_epochs=(n_epochs_init, 9)).set_callbacks(Stop()).fit(blobs)
    assert fitted.n_iter_ == 3
    assert np.array_equal(fitted.labels_, fitted.predict(blobs))


def test_interrupted_refit_leaves_the_former_fit_whole(blobs):
    fitted = model().fit(blobs)
    before = fitted.transform(blobs)
    fitted.set_callbacks(Interrupt())
    with pytest.raises(KeyboardInterrupt):
        fitted.fit(2 * blobs[::-1])
    assert np.array_equal(before, fitted.transform(blobs))


def test_pipeline_in_grid_search(blobs, capsys):
    pipe = make_pipeline(FunctionTransformer(), model(verbose=1))
    name = "manifoldlinearizingclustering"
    search = GridSearchCV(pipe, {f"{name}__n_clusters": [3, 4]}, cv=2, error_score="raise").fit(blobs)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert capsys.readouterr().out.count("[ManifoldLinearizingClustering] step") == 5 * 7


@pytest.mark.parametrize(("n_epochs_init", "n_epochs"), [(0, 0), (0, 2), (3, 0)])
def test_stages_can_be_skipped(n_epochs_init, n_epochs, blobs):
    fitted = model(n_epochs=(n_epochs_init, n_epochs)).fit(blobs)
    assert fitted.n_iter_ == max(1, n_epochs_init + n_epochs)
    assert fitted.n_steps_init_ == n_epochs_init
    assert fitted.coding_rates_.shape == (n_epochs, 2)
    assert np.array_equal(fitted.labels_, fitted.predict(blobs))


# Refusals and warnings


@pytest.mark.parametrize(
    ("params", "rows", "message"),
    [
        ({}, slice(1), "minimum of 2 is required"),
        ({"n_clusters": 8}, slice(5), r"n_samples=5 should be >= n_clusters=8"),
        ({"precision": 0.0}, slice(None), "'precision' parameter"),
        ({"standardize": True}, slice(None), "'standardize' parameter"),
        ({"hidden_layer_sizes": (16, 0)}, slice(None), r"hidden_layer_sizes=\(16, 0\)"),
        ({"hidden_layer_sizes": ()}, slice(None), r"hidden_layer_sizes=\(\) has no layer"),
        ({"n_epochs": (5,)}, slice(None), r"n_epochs=\(5,\) has to be 'auto', or a pair"),
        ({"n_epochs": (5, -1)}, slice(None), r"n_epochs=\(5, -1\) has to be"),
        (
            {"learning_rate": (0.1, 0.0)},
            slice(None),
            r"learning_rate=\(0.1, 0.0\) has to be a positive number, or a pair",
        ),
        ({"net_params": {"module__width": 3}}, slice(None), "'module__width'.* unknown to the default network"),
        ({"net_params": {"module__activation": "sine"}}, slice(None), "module__activation='sine' is unknown"),
    ],
)
def test_what_is_refused(params, rows, message, blobs):
    with pytest.raises(ValueError, match=message):
        model(**params).fit(blobs[rows])


def test_rows_that_are_all_alike_give_one_label_and_a_warning():
    with pytest.warns(ConvergenceWarning, match="found 1 clusters, fewer than n_clusters=3"):
        fitted = model(3).fit(np.ones((40, 4)))
    assert set(fitted.labels_) == {0}


def test_one_cluster_and_as_many_as_rows(blobs):
    assert set(model(1).fit(blobs).labels_) == {0}
    assert model(7).fit(blobs[:7]).predict(blobs[:7]).max() <= 6


def test_weights_load_on_a_machine_without_the_users_seed(blobs):
    fitted = model().fit(blobs)
    before = torch.get_rng_state()
    fitted.predict(blobs)
    assert torch.equal(before, torch.get_rng_state())
    assert not any(isinstance(value, torch.Tensor | nn.Module | Randomness) for value in vars(fitted).values())


@pytest.mark.slow
def test_scikit_learn_contract_with_the_defaults():
    results = check_estimator(ManifoldLinearizingClustering(), on_fail=None, on_skip=None)
    assert not [r["check_name"] for r in results if r["status"] in ("failed", "xfail")]
    assert sum(r["status"] == "passed" for r in results) > 50


@pytest.mark.cuda
def test_cuda_agrees(blobs):
    here, there = (model(device=device, n_epochs=(20, 2)).fit(blobs) for device in ("cpu", "cuda"))
    assert clustering_accuracy(here.labels_, there.labels_) > 0.97
    moved = pickle.loads(pickle.dumps(there)).set_params(device="cpu")
    assert np.array_equal(moved.predict(blobs), there.labels_)
    np.testing.assert_allclose(moved.transform(blobs), there.transform(blobs), atol=1e-4)
