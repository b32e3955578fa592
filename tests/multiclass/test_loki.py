"""LokiClassifier: the rule against a plain loop, labels without rows, loci, ties, wrapped models."""

import itertools

import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from sklearn import config_context
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_diabetes, load_digits, load_iris, load_wine
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, Ridge, SGDClassifier
from sklearn.metrics import accuracy_score, log_loss
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.multiclass import OneVsRestClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC

from sklowrank.multiclass import LokiClassifier, _frechet_means
from sklowrank.multiclass._frechet_means import Labels, frechet_means


class Given(ClassifierMixin, BaseEstimator):
    """Rows are the probabilities themselves."""

    def fit(self, X, y):
        self.classes_, self.n_features_in_ = np.unique(y), X.shape[1]
        return self

    def predict_proba(self, X):
        return X if isinstance(X, torch.Tensor) else np.asarray(X)

    def predict(self, X):
        return self.classes_[np.argmax(X, axis=1)]


def given(observed, **params):
    """Return a classifier for rows that are probabilities of some labels."""
    return LokiClassifier(Given(), **params).fit(np.eye(len(observed)), np.asarray(observed))


def logistic():
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))


def slow_rule(P, distances, power=2.0):
    """The definition: for each row and label the sum over the observed ones."""
    values = [[sum(p * d**power for p, d in zip(row, column)) for column in distances.T] for row in P]
    return np.array(values)


def path_lengths(edges, n):
    """Distances of all nodes of a tree, by Floyd and Warshall."""
    D = np.full((n, n), np.inf)
    np.fill_diagonal(D, 0)
    for a, b, *weight in edges:
        D[a, b] = D[b, a] = weight[0] if weight else 1.0
    for k in range(n):
        D = np.minimum(D, D[:, [k]] + D[[k]])
    return D


def random_tree(n, seed, *, weighted=False):
    """Edges of a random tree of the nodes 0, ..., n - 1, of which the names say nothing about the shape."""
    rng = np.random.default_rng(seed)
    name = rng.permutation(n).tolist()
    weights = rng.uniform(0.5, 2, n).tolist()
    edges = [(name[int(rng.integers(0, c))], name[c], weights[c]) for c in range(1, n)]
    return edges if weighted else [edge[:2] for edge in edges]


def spaces(m=30, seed=0):
    """Each kind of label space with m labels, and its distances."""
    rng = np.random.default_rng(seed)
    numbers = np.sort(rng.choice(1000, m, replace=False)).astype(float)
    points, edges = rng.normal(size=(m, 3)), random_tree(m, seed, weighted=True)
    D = np.linalg.norm(points[:, None] - points, axis=2)
    labels = np.arange(m)
    return {
        "discrete": ({"metric": "discrete", "label_space": labels}, labels, 1.0 - np.eye(m)),
        "ordinal": ({"label_space": numbers}, numbers, np.abs(np.subtract.outer(labels, labels)).astype(float)),
        "numeric": (
            {"metric": "numeric", "label_space": numbers},
            numbers,
            np.abs(np.subtract.outer(numbers, numbers)),
        ),
        "embedding": ({"metric": "embedding", "label_space": labels, "label_embeddings": points}, labels, D),
        "precomputed": ({"metric": "precomputed", "label_space": labels, "distances": D}, labels, D),
        "callable": ({"metric": lambda a, b: D[a, b], "label_space": labels}, labels, D),
        "tree": ({"metric": "tree", "label_tree": edges}, labels, path_lengths(edges, m)),
    }


KINDS = list(spaces())


# The rule


@pytest.mark.parametrize("power", [1.0, 2.0, 3.0])
@pytest.mark.parametrize("kind", KINDS)
def test_everything_is_that_of_a_plain_loop(kind, power):
    params, labels, D = spaces()[kind]
    rng = np.random.default_rng(1)
    seen = np.sort(rng.choice(30, 6, replace=False))
    P = rng.dirichlet(np.full(6, 0.4), 80)
    model, values = given(labels[seen], power=power, **params), slow_rule(P, D[seen], power)
    least = values.min(1)
    chosen = np.searchsorted(labels, model.predict(P))
    np.testing.assert_allclose(values[np.arange(80), chosen], least, rtol=1e-10)  # medians tie on intervals
    if power > 1:
        assert np.array_equal(labels[chosen], labels[values.argmin(1)])
    np.testing.assert_allclose(model.frechet_variance(P), least, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(model.decision_function(P), -values, rtol=1e-9, atol=1e-9 * values.max())
    np.testing.assert_allclose(model.distances_, D[seen], atol=1e-12)
    proba = model.predict_proba(P)
    np.testing.assert_allclose(proba.sum(1), 1)
    np.testing.assert_allclose(values[np.arange(80), proba.argmax(1)], least, rtol=1e-9)
    truth = rng.choice(30, 80)
    assert np.isclose(model.score_distance(P, labels[truth]), np.mean(D[chosen, truth] ** power))
    assert np.all(least <= values[np.arange(80), seen[P.argmax(1)]] + 1e-12)


@pytest.mark.parametrize("load", [load_iris, load_wine, load_digits])
def test_discrete_is_argmax(load):
    X, y = load(return_X_y=True)
    model = LokiClassifier(logistic(), "discrete").fit(X, y)
    assert np.array_equal(model.predict(X), model.estimator_.predict(X))


@pytest.mark.parametrize("n_dims", [1, 2, 7, 20])
def test_each_search_for_the_nearest_point_agrees(n_dims, monkeypatch):
    """By sorting, by a tree and by products, with labels in several blocks, and with copies of points."""
    rng = np.random.default_rng(0)
    E = rng.normal(size=(500, n_dims)) + 1e4
    if n_dims > 1:
        E[200:300] = E[:100]
    seen = np.sort(rng.choice(500, 30, replace=False))
    P = np.vstack([rng.dirichlet(np.full(30, 0.1), 300), np.eye(30)])
    model = given(seen, metric="embedding", label_space=np.arange(500), label_embeddings=E)
    expected = model.predict(P)
    monkeypatch.setattr(_frechet_means, "_TREE_LABELS", 1)
    assert np.array_equal(model.predict(P), expected)
    monkeypatch.setattr(_frechet_means, "_TREE_LABELS", 1e9)
    monkeypatch.setattr(_frechet_means, "_COLUMNS", 64)
    assert np.array_equal(model.predict(P), expected)
    D = np.linalg.norm(E[:, None] - E, axis=2)
    table = given(seen, metric="precomputed", label_space=np.arange(500), distances=D)
    assert np.array_equal(table.predict(P), expected)
    assert np.array_equal(expected[-30:], seen)


@pytest.mark.parametrize("kind", KINDS)
def test_scale_of_distances_and_block_size_change_nothing(kind):
    params, labels, _ = spaces()[kind]
    P = np.random.default_rng(1).dirichlet(np.ones(5), 60)
    seen = labels[[2, 9, 14, 20, 28]]
    model = given(seen, **params)
    expected, proba = model.predict(P), model.predict_proba(P)
    model.set_params(batch_size=7)
    assert np.array_equal(model.predict(P), expected)
    np.testing.assert_allclose(model.predict_proba(P), proba, rtol=1e-12)
    np.testing.assert_allclose(model.predict_proba(P[:2]), proba[:2], rtol=1e-12)
    if kind in ("precomputed", "embedding", "tree"):
        name = {"precomputed": "distances", "embedding": "label_embeddings", "tree": "label_tree"}[kind]
        for scale in (1e-150, 1e150):
            value = [(a, b, w * scale) for a, b, w in params[name]] if kind == "tree" else params[name] * scale
            there = given(seen, **{**params, name: value})
            assert np.array_equal(there.predict(P), expected)
            np.testing.assert_allclose(there.predict_proba(P), proba, rtol=1e-9)


def test_order_of_label_space_and_of_rows_does_not_matter():
    rng = np.random.default_rng(2)
    names = np.array([f"n{i:02d}" for i in range(12)])
    E, seen = rng.normal(size=(12, 3)), [1, 4, 7, 10]
    D, P, mixed = np.linalg.norm(E[:, None] - E, axis=2), rng.dirichlet(np.ones(4), 100), rng.permutation(12)
    expected = names[slow_rule(P, D[seen]).argmin(1)]
    a = given(names[seen], metric="embedding", label_space=names[mixed], label_embeddings=E[mixed])
    b = given(names[seen], metric="precomputed", label_space=names[mixed], distances=D[np.ix_(mixed, mixed)])
    for model in (a, b):
        assert np.array_equal(model.classes_, names)
        assert np.array_equal(model.classes_[model.observed_index_], model.observed_classes_)
        assert np.array_equal(model.predict(P), expected)
        assert np.array_equal(model.predict(P[::-1]), expected[::-1])
        assert np.isclose(
            model.score_distance(P, names[[3] * 100]), np.mean(D[np.searchsorted(names, expected), 3] ** 2)
        )


def test_numbers_that_came_as_text_are_no_numbers():
    with pytest.raises(ValueError, match="labels that are numbers, but there is '1'"):
        given(["1", "2"], metric="numeric")


def test_mean_and_not_median_and_distances_are_squared_once():
    """At 0, 1 and 10 with halves at the ends the functional is 50, 41, 50; the median ties at 5."""
    points, half = np.array([0, 1, 10]), np.array([[0.5, 0, 0.5]])
    assert given(points, metric="numeric").predict(half) == 1
    assert given(points, metric="numeric").frechet_variance(half) == pytest.approx(41)
    assert given(points, metric="numeric", power=1).frechet_variance(half) == pytest.approx(5)


def test_ties_are_settled_by_probability_or_by_order():
    space = np.array(["c", "a", "b"])  # at 0, 5 and 10
    D = np.abs(np.subtract.outer([0, 5, 10], [0, 5, 10]))
    tie = {"metric": "precomputed", "label_space": space, "distances": D, "power": 1.0}
    assert given(["b", "c"], **tie).predict([[0.5, 0.5]]) == "b"
    assert given(["b", "c"], tie_break="first", **tie).predict([[0.5, 0.5]]) == "a"
    assert given(["b", "c"], **tie).predict([[0.5 - 1e-14, 0.5 + 1e-14]]) == "c"
    twins = {"metric": "embedding", "label_space": [0, 1, 2], "label_embeddings": [[3.3], [3.3], [7.0]]}
    assert given([1, 2], **twins).predict([[1.0, 0.0]]) == 1  # label 0 is at the same place and was never seen


def test_twins_win_by_probability_in_every_search():
    rng = np.random.default_rng(0)
    E = np.vstack([rng.normal(size=(40, 3))] * 2)
    model = given(np.arange(40, 80), metric="embedding", label_space=np.arange(80), label_embeddings=E)
    P = rng.dirichlet(np.full(40, 0.02), 200)
    assert np.mean(model.predict(P) >= 40) > 0.5  # most rows are nearly certain of one label
    assert np.array_equal(model.predict(np.eye(40)), np.arange(40, 80))
    assert np.array_equal(model.set_params(tie_break="first").predict(np.eye(40)), np.arange(40))


# Probabilities


def test_temperature_rows_that_do_not_sum_to_one_and_rows_of_zeros():
    rng = np.random.default_rng(0)
    P = rng.dirichlet(np.ones(4), 50)
    model = given([0, 3, 5, 9], metric="numeric", label_space=np.arange(10))
    assert np.array_equal(model.predict(3 * P), model.predict(P))
    assert np.array_equal(model.predict(1e-300 * P), model.predict(P))
    assert model.predict(np.zeros((1, 4))) == model.predict(np.full((1, 4), 0.25))
    model.set_params(temperature=0.5)
    np.testing.assert_allclose(model.base_proba(P), P**2 / (P**2).sum(1, keepdims=True))
    model.set_params(temperature=1e-3)  # powers of 1,000 underflow unless they are scaled
    assert np.array_equal(model.predict(P), model.observed_classes_[P.argmax(1)])
    with pytest.raises(ValueError, match="no probabilities"):
        model.predict(P * np.nan)


def test_decision_values_stand_in_for_probabilities():
    X, y = load_iris(return_X_y=True)
    model = LokiClassifier(LinearSVC(), "discrete", scores="decision").fit(X, y)
    assert np.array_equal(model.predict(X), model.estimator_.predict(X))
    two = LokiClassifier(LinearSVC(), scores="decision").fit(X[:100], y[:100])
    assert np.array_equal(two.predict(X[:100]), y[:100])
    assert two.decision_function(X).shape == (150,)
    assert np.array_equal(two.decision_function(X) > 0, two.predict(X) == 1)
    with pytest.raises(AttributeError, match=r"LinearSVC has no predict_proba.*Use scores='decision'"):
        LokiClassifier(LinearSVC()).fit(X, y)
    with pytest.raises(AttributeError, match=r"GaussianNB has no decision_function.*Use scores='proba'"):
        LokiClassifier(GaussianNB(), scores="decision").fit(X, y)
    digits = load_digits(n_class=4, return_X_y=True)
    pairs = LokiClassifier(SVC(decision_function_shape="ovo"), scores="decision").fit(*digits)
    with pytest.raises(ValueError, match=r"6 columns for 4 classes.*decision_function_shape='ovr'"):
        pairs.predict(digits[0])


# Labels without rows


def test_bins_of_diabetes_that_were_never_seen():
    X, y = load_diabetes(return_X_y=True)
    y = np.clip(np.digitize(y, np.linspace(y.min(), y.max(), 21)) - 1, 0, 19)
    X, X_test, y, y_test = train_test_split(X, y, test_size=0.3, random_state=0)
    seen = np.isin(y, [0, 3, 6, 9, 12, 15, 18, 19])
    model = LokiClassifier(logistic(), "numeric", label_space=np.arange(20)).fit(X[seen], y[seen])
    found, argmax = model.predict(X_test), model.estimator_.predict(X_test)
    assert np.mean((found - y_test) ** 2) <= 0.85 * np.mean((argmax - y_test) ** 2)
    unseen = ~np.isin(y_test, y[seen])
    assert accuracy_score(y_test[unseen], found[unseen]) > 0.03
    assert len(set(found) - set(y[seen])) >= 5
    assert np.isfinite(log_loss(y_test, model.predict_proba(X_test), labels=model.classes_))


def test_inner_nodes_of_a_tree_bring_predictions_nearer_and_leaves_alone_do_not():
    rng = np.random.default_rng(0)
    n = 127
    edges = [((c - 1) // 2, c) for c in range(1, n)]
    mean = np.zeros((n, 16))
    for parent, child in edges:
        mean[child] = mean[parent] + rng.normal(size=16) * 0.8 ** np.floor(np.log2(child + 1))
    y = np.repeat(np.arange(63, n), 40)
    X, seen = mean[y] + 0.5 * rng.normal(size=(len(y), 16)), rng.choice(np.arange(63, n), 16, replace=False)
    rows, D = np.isin(y, seen), path_lengths(edges, n)
    base = LogisticRegression(max_iter=1000).fit(X[rows], y[rows])
    whole, leaves = (
        LokiClassifier(FrozenEstimator(base), "tree", label_tree=edges, tree_nodes=nodes).fit(X[rows], y[rows])
        for nodes in ("all", "leaves")
    )
    squared = [np.mean(D[model.predict(X), y] ** 2) for model in (whole, leaves, base)]
    assert squared[0] <= 0.65 * squared[2]
    assert squared[1] <= squared[2]
    assert set(leaves.predict(X)) <= set(seen)
    assert whole.score_distance(X, y) == pytest.approx(squared[0])
    assert np.mean(whole.predict(X[rows]) == y[rows]) < np.mean(base.predict(X[rows]) == y[rows])  # the price


def test_tables_of_label_by_label_are_not_made(monkeypatch):
    m = 40_000  # which would take 13 GB
    rng = np.random.default_rng(0)
    E = rng.normal(size=(m, 10))
    seen = np.sort(rng.choice(m, 20, replace=False))
    model = given(seen, metric="embedding", label_space=np.arange(m), label_embeddings=E)
    P = rng.dirichlet(np.ones(20), 5)
    mean = P @ E[seen]
    assert np.array_equal(model.predict(P), ((mean[:, None] - E) ** 2).sum(2).argmin(1))
    assert given(seen, metric="numeric", label_space=np.arange(m)).predict(P).tolist() == np.rint(P @ seen).tolist()


# The locus


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_the_locus_of_a_tree_is_the_paths_between_observed_nodes(seed, weighted):
    edges = random_tree(40, seed, weighted=weighted)
    D = path_lengths(edges, 40)
    seen = np.sort(np.random.default_rng(seed).choice(40, 4, replace=False))
    model = given(seen, metric="tree", label_tree=edges)
    between = [np.abs(D[i] + D[j] - D[i, j]) < 1e-9 for i, j in itertools.combinations(seen, 2)]
    assert np.array_equal(model.locus(), np.flatnonzero(np.any(between, axis=0)))
    by_programs = given(seen, metric="precomputed", distances=D, label_space=np.arange(40)).locus("exact")
    assert np.array_equal(model.locus(), by_programs)
    assert set(model.locus("sample")) <= set(by_programs)


@pytest.mark.parametrize("seed", range(3))
def test_the_first_pick_grows_the_locus_most(seed):
    edges = random_tree(60, seed)
    D, seen = path_lengths(edges, 60), np.sort(np.random.default_rng(seed).choice(60, 3, replace=False))

    def size(nodes):
        on = [np.abs(D[i] + D[j] - D[i, j]) < 1e-9 for i, j in itertools.combinations(nodes, 2)]
        return np.any(on, axis=0).sum()

    model = given(seen, metric="tree", label_tree=edges)
    picks = model.next_class(4)
    assert size([*seen, picks[0]]) == max(size([*seen, v]) for v in range(60))
    assert len(set(picks) - set(model.locus())) == 4
    allowed = np.setdiff1d(np.arange(60), model.locus())[:3]
    assert set(model.next_class(2, candidates=allowed[::-1])) <= set(allowed)
    leaves = np.flatnonzero((D == 1).sum(1) == 1)
    every = given(leaves, metric="tree", label_tree=edges)
    assert len(every.locus()) == 60
    assert len(every.next_class(3)) == 0


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("kind", ["embedding", "numeric", "tree", "callable"])
def test_the_exact_locus_is_that_of_linear_programs(kind, power):
    params, labels, D = spaces(20)[kind]
    seen = np.array([1, 6, 11, 17])
    model = given(labels[seen], power=power, **params)
    A = D[seen] ** power
    feasible = [
        linprog(np.zeros(4), (A[:, [v]] - np.delete(A, v, 1)).T, np.zeros(19), np.ones((1, 4)), [1.0]).status == 0
        for v in range(20)
    ]
    assert np.array_equal(model.locus("exact"), labels[feasible])
    assert set(model.locus("sample")) <= set(model.locus())


@pytest.mark.parametrize("kind", ["embedding", "precomputed", "callable", "discrete"])
def test_other_spaces_pick_farthest_first(kind):
    params, labels, D = spaces()[kind]
    model = given(labels[:3], **params)
    inside = np.searchsorted(labels, model.locus())
    expected = []
    for _ in range(3):
        near = D[[*inside, *expected]].min(0)
        expected.append(int(near.argmax()))
    assert model.next_class(3).tolist() == labels[expected].tolist()
    assert len(given(labels, **params).next_class(3)) == 0


def test_the_locus_refuses_unknown_methods():
    with pytest.raises(ValueError, match="'auto', 'exact' and 'sample'"):
        given([0, 1]).locus("all")


# What is wrapped


def test_models_of_the_caller_are_not_touched():
    X, y = load_iris(return_X_y=True)
    base = LogisticRegression(max_iter=500).fit(X, y)
    coef = base.coef_.copy()
    frozen = LokiClassifier(FrozenEstimator(base), "numeric", label_space=np.arange(5)).fit(X[:3], y[:3])
    assert np.array_equal(base.coef_, coef)
    assert np.array_equal(frozen.base_proba(X).argmax(1), base.predict_proba(X).argmax(1))
    raw = LogisticRegression()
    LokiClassifier(raw).fit(X, y)
    assert not hasattr(raw, "coef_")
    stream = SGDClassifier(loss="log_loss", random_state=0).fit(X, y)
    assert not hasattr(LokiClassifier(FrozenEstimator(stream)), "partial_fit")


def test_fit_params_reach_the_classifier_with_routing_and_without():
    X, y = load_iris(return_X_y=True)
    weight = np.random.default_rng(0).random(150)
    direct = LogisticRegression().fit(X, y, sample_weight=weight).coef_
    plain = LokiClassifier(LogisticRegression()).fit(X, y, sample_weight=weight)
    assert np.array_equal(plain.estimator_.coef_, direct)
    with config_context(enable_metadata_routing=True):
        asked = LokiClassifier(LogisticRegression().set_fit_request(sample_weight=True))
        assert np.array_equal(asked.fit(X, y, sample_weight=weight).estimator_.coef_, direct)


def test_batches():
    X, y = load_iris(return_X_y=True)
    model = LokiClassifier(SGDClassifier(loss="log_loss", random_state=0), "numeric", label_space=np.arange(4))
    base = clone(model.estimator)
    for rows in (slice(0, 75), slice(75, 150)):
        model.partial_fit(X[rows], y[rows], classes=[0, 1, 2])
        base.partial_fit(X[rows], y[rows], classes=[0, 1, 2])
    assert np.array_equal(model.estimator_.coef_, base.coef_)
    assert model.classes_.tolist() == [0, 1, 2, 3]
    with pytest.raises(ValueError, match=r"\[7\] are not in label_space"):
        clone(model).partial_fit(X, y, classes=[0, 1, 7])
    stays = model.set_params(label_space=[0, 1, 2]).partial_fit(X, y)
    assert stays.classes_.tolist() == [0, 1, 2, 3]
    constant = clone(model).fit(X[:50], y[:50])
    assert constant.partial_fit(X, y, classes=[0, 1, 2]).observed_classes_.tolist() == [0, 1, 2]
    assert not hasattr(LokiClassifier(), "partial_fit")


def test_one_label():
    X, _ = load_iris(return_X_y=True)
    assert set(LokiClassifier().fit(X, ["a"] * 150).predict(X)) == {"a"}
    model = LokiClassifier(metric="numeric", label_space=[0, 1, 2, 3]).fit(X, np.full(150, 2))
    assert set(model.predict(X)) == {2}
    assert np.array_equal(model.frechet_variance(X), np.zeros(150))
    assert model.locus().tolist() == [2]
    by_decision = LokiClassifier(LinearSVC(), scores="decision").fit(X, ["a"] * 150, sample_weight=np.ones(150))
    assert set(by_decision.predict(X)) == {"a"}
    with config_context(array_api_dispatch=True):
        rows, y = torch.from_numpy(X), torch.ones(150, dtype=torch.int64, device="cpu")
        assert torch.equal(LokiClassifier().fit(rows, y).predict(rows), y)


def test_calibration_one_versus_rest_and_grid_search():
    X, y = load_iris(return_X_y=True)
    calibrated = CalibratedClassifierCV(LogisticRegression(), method="temperature", cv=3)
    for base in (calibrated, OneVsRestClassifier(LogisticRegression())):
        assert LokiClassifier(base).fit(X, y).score(X, y) > 0.85
    search = GridSearchCV(
        LokiClassifier(logistic()),
        {"temperature": [0.5, 1.0], "estimator__logisticregression__C": [0.1, 1.0]},
        scoring=lambda model, X, y: -model.score_distance(X, y),
        cv=3,
    )
    assert np.isfinite(search.fit(X, y).cv_results_["mean_test_score"]).all()
    outside = CalibratedClassifierCV(LokiClassifier(logistic()), cv=3).fit(X, y)
    assert outside.score(X, y) > 0.85


def test_score_distance_has_weights_and_names_unknown_labels():
    model = given([0, 4], metric="numeric", label_space=np.arange(5))
    P = np.array([[1.0, 0.0], [0.0, 1.0]])
    assert model.score_distance(P, [0, 3]) == 0.5
    assert model.score_distance(P, [0, 3], sample_weight=[1, 3]) == 0.75
    with pytest.raises(ValueError, match="9"):
        model.score_distance(P, [0, 9])


# Arrays


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
@pytest.mark.parametrize("kind", KINDS)
def test_tensors_are_answered_where_they_are(kind, device):
    params, labels, _ = spaces()[kind]
    P = np.random.default_rng(0).dirichlet(np.ones(4), 20)
    seen = labels[[1, 8, 16, 27]]
    expected = given(seen, **params)
    with config_context(array_api_dispatch=True):
        X = torch.eye(4, dtype=torch.float64, device=device)
        model = LokiClassifier(Given(), **params).fit(X, seen)
        rows = torch.from_numpy(P).to(device)
        found = {name: getattr(model, name)(rows) for name in ("predict", "predict_proba", "frechet_variance")}
    for name, answer in found.items():
        assert isinstance(answer, torch.Tensor)
        assert answer.device.type == device
        np.testing.assert_allclose(answer.cpu().numpy(), getattr(expected, name)(P), rtol=1e-10)
    assert isinstance(model.classes_, torch.Tensor)


def test_float32_is_computed_in_float64():
    params, labels, _ = spaces()["embedding"]
    P = np.random.default_rng(0).dirichlet(np.ones(4), 20).astype(np.float32)
    model = given(labels[:4], **params)
    assert model.frechet_variance(P).dtype == model.decision_function(P).dtype == np.float32
    np.testing.assert_allclose(model.frechet_variance(P), model.frechet_variance(P.astype(float)), rtol=1e-6)


def test_the_rule_makes_no_tensor_elsewhere():
    """Under a default device on which a tensor without a device would have no values."""
    P = torch.from_numpy(np.random.default_rng(0).dirichlet(np.ones(3), 10))
    points = torch.arange(6, dtype=torch.float64, device="cpu")[:, None]
    observed = torch.tensor([0, 2, 5], device="cpu")
    expected = frechet_means(P, Labels(observed, 6, points), 2.0)
    with torch.device("meta"):
        for power in (2.0, 3.0):
            found = frechet_means(P, Labels(observed, 6, points), power)
            assert found[0].device.type == "cpu"
    assert torch.equal(frechet_means(P, Labels(observed, 6, points), 2.0)[0], expected[0])


# Refusals


ROWS, NAMES = np.random.default_rng(0).normal(size=(30, 3)), np.repeat(["a", "b", "c"], 10)
LINE = np.abs(np.subtract.outer(np.arange(3.0), np.arange(3.0)))
LOPSIDED, MINUS = LINE.copy(), -LINE
LOPSIDED[0, 1] = 5


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"label_space": ["a", "b"]}, r"\['c'\] are not in label_space"),
        ({"label_space": [0, 1, 2]}, "are not in label_space"),
        ({"label_space": ["a", "b", "c", "a"]}, "label_space has .*'a'.* more than once"),
        ({"label_space": [["a", "b", "c"]]}, r"label_space has the shape \(1, 3\)"),
        ({"label_space": [0.0, np.nan]}, "label_space has NaN"),
        ({"label_space": np.array(["a", "b", "c", 4], dtype=object)}, "label_space has labels that cannot be sorted"),
        ({"metric": "precomputed"}, "needs distances"),
        ({"metric": "precomputed", "distances": LINE[:2]}, r"distances has the shape \(2, 3\)"),
        ({"metric": "precomputed", "distances": LOPSIDED}, "distances is not symmetric"),
        ({"metric": "precomputed", "distances": MINUS}, "distances has the negative value"),
        ({"metric": "precomputed", "distances": LINE + np.eye(3)}, "distances has 1 on its diagonal"),
        ({"metric": "precomputed", "distances": LINE * np.inf}, "distances contains"),
        ({"metric": "embedding"}, "needs label_embeddings"),
        ({"metric": "embedding", "label_embeddings": [1.0, 2.0, 3.0]}, r"label_embeddings has the shape \(3,\)"),
        ({"metric": "embedding", "label_embeddings": np.eye(2)}, r"label_embeddings has the shape \(2, 2\)"),
        ({"metric": "tree"}, "needs label_tree"),
        ({"metric": "tree", "label_tree": []}, "label_tree has to be a list of edges"),
        ({"metric": "tree", "label_tree": [("a", "b"), ("c", "d")]}, "label_tree is not connected"),
        ({"metric": "tree", "label_tree": [("a", "b"), ("b", "c"), ("c", "a")]}, "label_tree has 3 edges .* a ring"),
        ({"metric": "tree", "label_tree": [("a", "b"), ("b", "a"), ("c", "d")]}, "label_tree is not connected"),
        ({"metric": "tree", "label_tree": [("a", "b", -1), ("b", "c")]}, "label_tree has the weight -1"),
        ({"metric": "tree", "label_tree": [("a", "b", 1), ("b", 3)]}, "label_tree has nodes that cannot be sorted"),
        ({"metric": "tree", "label_tree": [("a", "b"), ("b", "x")]}, r"\['c'\] are not in label_tree"),
        ({"metric": "numeric", "label_space": ["1", "2"]}, "are not in label_space"),
        ({"metric": "numeric"}, "metric='numeric' needs labels that are numbers"),
        ({"metric": lambda a, b: -1.0}, "metric returned a value that is negative"),
        ({"power": 0.0}, "power"),
        ({"temperature": 0.0}, "temperature"),
        ({"metric": "manhattan"}, "metric"),
    ],
)
def test_what_makes_no_label_space_is_refused_with_its_name(params, message):
    with pytest.raises(ValueError, match=message):
        LokiClassifier(logistic(), **params).fit(ROWS, NAMES)


def test_ranks_of_text_are_those_of_label_space():
    names = ["low", "mid", "high", "top"]
    model = given(["high", "low", "top"], label_space=names)
    assert list(model.classes_) == sorted(names)
    ranks = np.array([names.index(name) for name in model.classes_])
    assert np.array_equal(model.distances_, np.abs(ranks[model.observed_index_][:, None] - ranks))
    assert model.predict([[0.5, 0.5, 0.0]]) == "mid"  # between high and low
    assert model.score_distance([[0.0, 1.0, 0.0]], ["top"]) == 9
    assert given([3, 1, 2], label_space=[3, 2, 1]).distances_[0, 2] == 2  # of numbers by size


def test_alphabetical_ranks_warn():
    with pytest.warns(UserWarning, match="alphabetical order: 'high', 'low', 'mid'. Pass label_space in the order"):
        given(["low", "mid", "high"])


def test_a_parameter_of_another_metric_warns():
    with pytest.warns(UserWarning, match="distances is not read with metric='ordinal'. Set metric='precomputed'"):
        given([0, 1], distances=np.ones((2, 2)) - np.eye(2))
    with pytest.warns(UserWarning, match="label_tree is not read with metric='discrete'"):
        given([0, 1], metric="discrete", label_tree=[(0, 1)])


def test_powers_of_large_distances_overflow_to_infinity_alone():
    model = given([0, 1, 2], metric="embedding", label_embeddings=[[0.0], [1e200], [3e200]])
    P = [[1.0, 0.0, 0.0], [0.4, 0.3, 0.3]]
    assert list(model.predict(P)) == [0, 1]
    assert list(model.frechet_variance(P)) == [0, np.inf]
    assert list(model.decision_function(P)[0]) == [0, -np.inf, -np.inf]


def test_distances_of_another_fit_are_refused():
    model = given([0, 1, 2], metric="precomputed", distances=np.abs(np.subtract.outer(range(3), range(3))))
    with pytest.raises(ValueError, match=r"metric='ordinal' was set after the fit.*Fit again"):
        model.set_params(metric="ordinal", distances=None).score_distance(np.eye(3), [0, 1, 2])


@pytest.mark.parametrize(
    ("params", "match"),
    [
        ({"metric": lambda a, b: 1.0}, "returned 1 for a label and itself"),
        ({"metric": lambda a, b: "far"}, "returned a value that is no number"),
        ({"metric": "tree", "label_tree": {0: [1], 1: [2]}}, "label_tree has to be a list of edges"),
        ({"metric": "tree", "label_tree": [(0, 1, "x"), (1, 2)]}, "label_tree has a weight that is no number"),
    ],
)
def test_refusals_of_distances(params, match):
    with pytest.raises(ValueError, match=match):
        given([0, 1, 2], **params)


def test_refusals_of_models():
    X, y = load_iris(return_X_y=True)
    with pytest.raises(ValueError, match=r"Ridge has no classes_ after its fit. Pass a classifier"):
        LokiClassifier(Ridge()).fit(X, y)
    with pytest.raises(NotFittedError):
        LokiClassifier(FrozenEstimator(LogisticRegression())).fit(X, y)
    for count in (0, True):
        with pytest.raises(ValueError, match=f"'n_classes' parameter of next_class .* Got {count} instead"):
            given([0, 1]).next_class(count)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (np.zeros(30), "at least one non-zero"),
        (-np.ones(30), "Negative values"),
        (np.full(30, np.nan), "contains NaN"),
        (np.ones((30, 1)), "1D array"),
        (np.ones(29), "sample_weight.shape"),
    ],
)
def test_weights_of_scores_are_checked(weights, message):
    X, y = np.random.default_rng(0).normal(size=(30, 2)), np.arange(30) % 3
    model = LokiClassifier(metric="numeric").fit(X, y)
    with pytest.raises(ValueError, match=message):
        model.score_distance(X, y, sample_weight=weights)
    assert model.score_distance(X, y, torch.full((30,), 2.0)) == model.score_distance(X, y)


def test_decisions_over_a_tiny_temperature():
    X, y = np.random.default_rng(0).normal(size=(30, 2)), np.arange(30) % 3
    model = LokiClassifier(LinearSVC(), "discrete", scores="decision", temperature=1e-310).fit(X, y)
    np.testing.assert_array_equal(model.predict(X), model.estimator_.predict(X))


def test_decisions_that_are_no_numbers():
    class Undecided(Given):
        def decision_function(self, X):
            return np.full((len(X), 3), np.nan)

    model = LokiClassifier(Undecided(), "numeric", scores="decision").fit(np.eye(3), [0, 1, 2])
    with pytest.raises(ValueError, match="decision_function of Undecided gave NaN"):
        model.predict(np.eye(3))


@pytest.mark.parametrize("candidates", [3, "a", [[0, 1]]])
def test_candidates_are_a_list(candidates):
    model = LokiClassifier(metric="numeric", label_space=range(5)).fit(np.eye(3), [0, 2, 4])
    with pytest.raises(ValueError, match="are no list"):
        model.next_class(candidates=candidates)


@pytest.mark.parametrize("dims", [1, 3])
def test_a_high_power_of_points_does_not_overflow(dims):
    points = np.random.default_rng(0).normal(size=(6, dims)) * 1e3
    P = np.eye(3)[[0, 1, 2, 1]]  # probabilities of zero times infinite powers would be NaN
    model = LokiClassifier(Given(), "embedding", label_space=range(6), label_embeddings=points, power=1e4)
    model.fit(P, [0, 2, 4, 2])
    np.testing.assert_array_equal(model.predict(P), [0, 2, 4, 2])
    assert np.isfinite(model.predict_proba(P)).all()
