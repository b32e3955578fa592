"""Nested projections: closed forms, the gradient start, what training gains, predictors of many kinds, groups."""

import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.linalg import subspace_angles
from scipy.special import log_softmax
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_diabetes, load_digits
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LinearRegression, LogisticRegression, PoissonRegressor, Ridge, RidgeClassifier
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, MinMaxScaler, PolynomialFeatures, StandardScaler
from sklearn.svm import SVC
from skorch import NeuralNetBinaryClassifier, NeuralNetClassifier, NeuralNetRegressor
from torch import nn

from sklowrank.compress import LowRankCompressor
from sklowrank.decomposition import MatryoshkaProjection
from sklowrank.decomposition._matryoshka_projection_solver import (
    cayley,
    gradient_moments,
    label_loss,
)
from sklowrank.decomposition._nested_rotations import (
    descending_order,
    flat_components,
    greedy_order,
    principal,
    rotation_of,
    splice,
    uniform_order,
)
from sklowrank.decomposition._teachers import divergence, find_teacher, live_teacher
from sklowrank.neural import NetworkClassifier, NetworkRegressor

RNG = np.random.default_rng(0)
X = RNG.normal(size=(300, 12)) @ (RNG.normal(size=(12, 12)) * np.geomspace(1, 0.05, 12)) + 3
CPU = torch.device("cpu")
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@pytest.fixture(scope="module")
def digits():
    """Rows of training and test, labels, and a fitted network."""
    rows, y = load_digits(return_X_y=True)
    A, B, a, b = train_test_split(rows / 16, y, test_size=0.4, random_state=0, stratify=y)
    params = {"max_iter": 15, "tol": 0, "learning_rate": 2e-3, "standardize": False, "random_state": 0}
    return A, B, a, b, NetworkClassifier((64,), **params).fit(A, a)


def rebuilt(model, rows, width):
    Q = model.components_[:width].astype(float)
    return (rows - model.mean_) @ Q.T @ Q + model.mean_


def angle(A, B):
    return subspace_angles(np.asarray(A).T, np.asarray(B).T).max()


# Closed forms


def test_reconstruction_is_pca_and_similarity_the_uncentred_directions():
    model, similarity = (MatryoshkaProjection(objective=name).fit(X) for name in ("reconstruction", "similarity"))
    pca, second = PCA().fit(X), np.linalg.svd(X, full_matrices=False)[2]
    for k in range(1, 12):
        assert angle(model.components_[:k], pca.components_[:k]) < 1e-6
        assert angle(similarity.components_[:k], second[:k]) < 1e-6
    np.testing.assert_allclose(
        model.transform(X), np.sign((model.components_ * pca.components_).sum(1)) * pca.transform(X)
    )
    np.testing.assert_allclose(similarity.transform(X) @ similarity.transform(X).T, X @ X.T, rtol=1e-10)
    assert np.all(similarity.mean_ == 0)
    assert model.n_iter_ == 0
    left = [np.square(X - rebuilt(model, X, width)).mean() for width in (4, 8, 12)]
    np.testing.assert_allclose([model.rank_loss_[width] for width in (4, 8, 12)], left, atol=1e-12)
    np.testing.assert_allclose(model.truncate(4).score(X), -left[0])


def test_groups_of_closed_forms_are_pca_of_each():
    model = MatryoshkaProjection(5, objective="reconstruction", n_groups=3, group_ranks="adaptive").fit(X)
    parts = [PCA().fit(X[:, i : i + 4]) for i in (0, 4, 8)]
    variances = np.sort(np.concatenate([p.explained_variance_ for p in parts]))[::-1]
    np.testing.assert_allclose(model.transform(X).var(0, ddof=1), variances[:5], rtol=1e-8)
    assert sum(model.group_ranks_) == 5


def test_principal_completes_the_null_space_by_the_second_matrix():
    B = torch.from_numpy(RNG.normal(size=(8, 3)))
    S = torch.from_numpy(np.cov(RNG.normal(size=(8, 40))))
    U = principal(B @ B.T, S)
    torch.testing.assert_close(U.T @ U, torch.eye(8, dtype=torch.float64))
    assert angle(U[:, :3].T, B.T) < 1e-7
    rest = (U[:, 3:].T @ S @ U[:, 3:]).numpy()
    np.testing.assert_allclose(rest, np.diag(np.diag(rest)), atol=1e-12)
    assert np.all(np.diff(np.diag(rest)) <= 0)
    spliced = splice(U, S, B @ B.T, 2)
    torch.testing.assert_close(spliced.T @ spliced, torch.eye(8, dtype=torch.float64))
    torch.testing.assert_close(spliced[:, :2], U[:, :2])


def test_the_cayley_map_rotates():
    R = cayley(torch.from_numpy(RNG.normal(size=(3, 6, 6)) * 10))
    torch.testing.assert_close(R.mT @ R, torch.eye(6, dtype=torch.float64).expand(3, 6, 6))


# The gradient start


def reference(teacher, rows, classifies):
    """Second moments of gradients, Jacobian by Jacobian."""
    total = np.zeros((rows.shape[1], rows.shape[1]))
    for x in torch.from_numpy(rows):
        J = torch.autograd.functional.jacobian(lambda z: teacher(z[None])[0], x).numpy()
        p = torch.softmax(teacher(x[None])[0] / 2, 0).detach().numpy()
        M = np.diag(p) - np.outer(p, p) if classifies else np.eye(len(J))
        total += J.T @ M @ J / len(rows)
    return total


@pytest.mark.parametrize("classifies", [True, False])
def test_gradient_moments_are_those_of_the_jacobians(classifies):
    W = torch.from_numpy(RNG.normal(size=(12, 4)))

    def function(z):
        return torch.tanh(z @ W / 3)

    teacher = live_teacher(find_teacher(function, torch.from_numpy(X)), CPU, torch.float64)
    teacher = teacher._replace(kind="classes" if classifies else "values")
    found = gradient_moments(teacher, torch.from_numpy(X[:50]), 1, torch.Generator())[0]
    np.testing.assert_allclose(found, reference(function, X[:50], classifies), rtol=1e-10, atol=1e-14)


def test_many_outputs_are_probed():
    W = torch.from_numpy(RNG.normal(size=(12, 100)) * np.geomspace(1, 1e-3, 12)[:, None])
    teacher = live_teacher(find_teacher(lambda z: z @ W, torch.from_numpy(X)), CPU, torch.float64)
    for kind, exact in (("values", (W @ W.T).numpy()), ("classes", None)):
        found = gradient_moments(teacher._replace(kind=kind), torch.from_numpy(X), 1, torch.Generator().manual_seed(0))
        exact = reference(lambda z: z @ W, X[:20], True) if exact is None else exact
        leading = [np.linalg.eigh(S)[1][:, -1] for S in (found[0].numpy(), exact)]
        assert abs(leading[0] @ leading[1]) > 0.9


def test_linear_predictors_are_exact_with_as_many_components_as_they_have_outputs(digits):
    A, B, a, _, _ = digits
    model = LogisticRegression(C=0.1, max_iter=1000).fit(A, a)
    nine = MatryoshkaProjection(estimator=model, init="gradient", max_iter=0).fit(A)
    truth = log_softmax(model.decision_function(B), 1)
    np.testing.assert_allclose(log_softmax(model.decision_function(rebuilt(nine, B, 9)), 1), truth, atol=1e-8)
    rows, y = load_diabetes(return_X_y=True)
    for regressor, width in ((Ridge(0.1).fit(rows, y), 1), (LinearRegression().fit(rows, np.c_[y, rows[:, 0]]), 2)):
        projection = MatryoshkaProjection(width, estimator=regressor, init="gradient", max_iter=0).fit(rows)
        there = projection.inverse_transform(projection.transform(rows))
        np.testing.assert_allclose(regressor.predict(there), regressor.predict(rows), atol=1e-9 * np.std(y))


# Training


def test_a_schedule_need_not_name_all_features(digits):
    A, _, _, _, network = digits
    params = {"estimator": FrozenEstimator(network), "max_iter": 20, "tol": 0, "random_state": 0}
    few, whole = (MatryoshkaProjection(8, rank_schedule=widths, **params).fit(A) for widths in ([4, 8], [4, 8, 64]))
    np.testing.assert_array_equal(few.components_, whole.components_)
    assert list(few.rank_loss_) == [4, 8, 64]


def test_training_gains_at_small_widths_where_pca_and_the_start_fail(digits):
    A, B, _, b, network = digits
    frozen, schedule = FrozenEstimator(network), list(range(4, 65, 4))
    trained = MatryoshkaProjection(estimator=frozen, rank_schedule=schedule, random_state=0).fit(A)
    start = MatryoshkaProjection(
        estimator=frozen, rank_schedule=schedule, init="gradient", max_iter=0, random_state=0
    ).fit(A)
    pca = MatryoshkaProjection(objective="reconstruction").fit(A)
    at = {name: [network.score(rebuilt(m, B, w), b) for w in (4, 8, 64)] for name, m in
          (("trained", trained), ("start", start), ("pca", pca))}  # fmt: skip
    assert trained.rank_loss_[4] < 0.8 * start.rank_loss_[4]
    assert at["trained"][0] > at["pca"][0] + 0.1
    assert at["trained"][1] > at["start"][1] - 0.02
    assert at["trained"][1] > at["pca"][1] + 0.03
    assert at["trained"][2] == network.score(B, b)
    assert trained.score(B) > max(start.score(B), -0.1)
    assert trained.n_iter_ == len(trained.loss_curve_) > 0
    loss = list(trained.rank_loss_.values())
    assert loss[0] > loss[2] > loss[-1]
    assert abs(loss[-1]) < 1e-9


def test_matrices_stay_orthogonal_and_signs_fixed(digits):
    A, *_, network = digits
    for dtype, steps in ((np.float32, 5e-2), (np.float64, 5e-3)):
        params = {"learning_rate": steps, "max_iter": 25, "random_state": 0}
        U = MatryoshkaProjection(estimator=network, **params).fit(A.astype(dtype)).components_
        assert U.dtype == dtype
        assert np.abs(U @ U.T - np.eye(64)).max() < 1e-5
        assert np.all(np.take_along_axis(U, np.abs(U).argmax(1)[:, None], 1) > 0)


def test_the_network_is_not_changed_and_computes_in_eval_mode():
    module = nn.Sequential(nn.Linear(12, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.ReLU(), nn.Linear(8, 3)).double()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    model = MatryoshkaProjection(estimator=module, max_iter=20, random_state=0).fit(X)
    assert module.training
    assert all(p.grad is None and p.requires_grad for p in module.parameters())
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert abs(model.score(X)) < np.inf
    assert abs(model.rank_loss_[12]) < 1e-12  # dropout would tell answers apart at full width


def test_labels_count_with_task_weight(digits):
    A, _, a, _, network = digits
    frozen = FrozenEstimator(network)
    params = {"estimator": frozen, "max_iter": 20, "random_state": 0, "init": "pca"}
    plain, tasked = (MatryoshkaProjection(task_weight=w, **params).fit(A, a) for w in (0.0, 0.75))
    assert not np.allclose(plain.components_, tasked.components_)
    with pytest.raises(ValueError, match=r"task_weight=0\.75 needs labels"):
        MatryoshkaProjection(task_weight=0.75, **params).fit(A)
    with pytest.raises(ValueError, match="no classes of the estimator"):
        MatryoshkaProjection(task_weight=0.75, **params).fit(A, a + 5)


def test_columns_of_labels_with_task_weight():
    X = np.random.default_rng(0).normal(size=(40, 4))
    y, params = X @ [[1.0, 0.0], [2.0, 1.0], [0.0, 1.0], [0.0, 0.0]], {"max_iter": 60, "task_weight": 0.5, "tol": 0.1}
    classifier, one, two = LogisticRegression().fit(X, y[:, 0] > 0), Ridge().fit(X, y[:, 0]), Ridge().fit(X, y)
    flat, column = (
        MatryoshkaProjection(estimator=FrozenEstimator(classifier), random_state=0, **params).fit(X, labels)
        for labels in (y[:, 0] > 0, y[:, :1] > 0)
    )
    np.testing.assert_array_equal(flat.components_, column.components_)
    for estimator, targets, found in ((one, y, "2 columns, .* 1 numbers"), (two, y[:, 0], "1 columns, .* 2 numbers")):
        with pytest.raises(ValueError, match=f"y has {found}"):
            MatryoshkaProjection(estimator=FrozenEstimator(estimator), **params).fit(X, targets)
    with pytest.raises(ValueError, match="1d array"):
        MatryoshkaProjection(estimator=FrozenEstimator(classifier), **params).fit(X, y > 0)


def test_truncation_after_other_parameters():
    X = np.random.default_rng(0).normal(size=(40, 6))
    model = MatryoshkaProjection(n_groups=2, max_iter=0).fit(X).set_params(n_groups=3)
    assert model.truncate(3).group_ranks_ == [2, 1]
    with pytest.raises(ValueError, match="n_components='a' has to be a whole number"):
        model.truncate("a")


def test_losses():
    logits, truth = torch.from_numpy(RNG.normal(size=(2, 7, 4)))
    p, q = truth.softmax(1), logits.softmax(1)
    torch.testing.assert_close(divergence(logits, truth, classifies=True), (p * (p / q).log()).sum(1))
    torch.testing.assert_close(divergence(logits, truth, classifies=False), ((logits - truth) ** 2).mean(1))
    torch.testing.assert_close(label_loss(logits, torch.arange(7) % 4), -q.log()[range(7), torch.arange(7) % 4])


# Predictors


class WithModule(RegressorMixin, BaseEstimator):
    """A predictor that shows a module and nothing else."""

    def fit(self, X, y):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.module_ = nn.Linear(X.shape[1], 2).double()
        return self

    def predict(self, X):
        return self.module_(torch.from_numpy(X)).detach().numpy()


def skorch_net(kind, criterion, n_out, y, tail=()):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, n_out), *tail)
        net = kind(module, criterion=criterion, max_epochs=3, lr=0.05, train_split=None, verbose=0)
        return net.fit(X.astype(np.float32), y)


CLASSES = (X[:, 0] > X[:, 1]).astype(int) + (X[:, 2] > 3)
VALUES = X[:, :2].astype(np.float32)


def predictors():
    yield "logistic", LogisticRegression().fit(X, CLASSES)
    yield "two classes", LogisticRegression().fit(X, CLASSES > 0)
    yield "discriminant", LinearDiscriminantAnalysis().fit(X, CLASSES)
    yield "ridge", Ridge().fit(X, VALUES)
    yield "classifier", NetworkClassifier((8,), max_iter=3, random_state=0).fit(X, CLASSES)
    yield "regressor", NetworkRegressor((8,), max_iter=3, random_state=0).fit(X, VALUES)
    yield "skorch classes", skorch_net(NeuralNetClassifier, nn.CrossEntropyLoss, 3, CLASSES)
    yield "skorch probabilities", skorch_net(NeuralNetClassifier, nn.NLLLoss, 3, CLASSES, [nn.Softmax(1)])
    binary = nn.Flatten(0)
    yield (
        "skorch binary",
        skorch_net(NeuralNetBinaryClassifier, nn.BCEWithLogitsLoss, 1, (CLASSES > 0).astype(np.float32), [binary]),
    )
    yield "skorch values", skorch_net(NeuralNetRegressor, nn.MSELoss, 2, VALUES)
    yield "pipeline", make_pipeline(StandardScaler(), PCA(8), LogisticRegression()).fit(X, CLASSES)
    yield "pipeline, network", make_pipeline(MinMaxScaler(), NetworkClassifier((8,), max_iter=3)).fit(X, CLASSES)
    small = NetworkClassifier((16, 16), max_iter=3, random_state=0).fit(X, CLASSES)
    yield "compressed", LowRankCompressor(FrozenEstimator(small), rank=4).fit(X)
    yield "module_", WithModule().fit(X, VALUES)


@pytest.mark.parametrize(
    ("name", "model"), list(predictors()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_outputs_are_those_of_the_predictor(name, model):
    stored = pickle.loads(pickle.dumps(find_teacher(FrozenEstimator(model), torch.from_numpy(X))))
    teacher = live_teacher(stored, CPU, torch.float64)
    outputs = teacher.outputs(torch.from_numpy(X))
    given = X.astype(np.float32) if name.startswith("skorch") else X
    if teacher.classifies:
        np.testing.assert_allclose(outputs.softmax(1), model.predict_proba(given), atol=1e-5)
    else:
        answers = outputs.detach().numpy() * np.asarray(stored.y_scale) + np.asarray(stored.y_mean)
        np.testing.assert_allclose(answers, model.predict(given), atol=1e-5)
    fitted = MatryoshkaProjection(estimator=FrozenEstimator(model), max_iter=2, random_state=0).fit(X)
    again = pickle.loads(pickle.dumps(fitted))
    assert again.score(X) == fitted.score(X) <= 1e-12


def test_what_cannot_be_differentiated_is_refused():
    curved = make_pipeline(PolynomialFeatures(2), LogisticRegression(max_iter=500)).fit(X, CLASSES)
    unstable = make_pipeline(FunctionTransformer(np.abs), Ridge()).fit(X - 3, VALUES)
    forest = RandomForestClassifier(3).fit(X, CLASSES)
    for model, word in ((forest, "RandomForestClassifier"), (curved, "PolynomialFeatures"), (unstable, "not affine")):
        with pytest.raises(TypeError, match=word):
            MatryoshkaProjection(estimator=model).fit(X - 3)
    with pytest.raises(TypeError, match="no gradients"):
        MatryoshkaProjection(estimator=lambda z: z.detach()).fit(X)
    with pytest.raises(NotFittedError):
        MatryoshkaProjection(estimator=LogisticRegression()).fit(X)
    with pytest.raises(ValueError, match="n_features_in_=12"):
        MatryoshkaProjection(estimator=Ridge().fit(X, VALUES)).fit(X[:, :5])
    with pytest.raises(ValueError, match="NaN or infinity"):
        MatryoshkaProjection(estimator=lambda z: z / 0).fit(X)


def test_models_whose_coefficients_are_not_their_answers_are_refused():
    three = np.digitize(X[:, 0], [-0.5, 0.5])
    for model in (SVC(kernel="linear").fit(X, three), PoissonRegressor().fit(X, np.abs(VALUES[:, 0]))):
        for predictor in (model, make_pipeline(FunctionTransformer(), model)):
            with pytest.raises(TypeError, match=f"{type(model).__name__}.*Pass a callable"):
                MatryoshkaProjection(estimator=predictor).fit(X)
    with pytest.raises(TypeError, match="several labels"):
        MatryoshkaProjection(estimator=RidgeClassifier().fit(X, np.eye(3, dtype=int)[three])).fit(X)
    two = SVC(kernel="linear").fit(X, three > 0)
    first = MatryoshkaProjection(1, estimator=two, max_iter=0, init="gradient").fit(X)
    assert (two.predict(rebuilt(first, X, 1)) == two.predict(X)).all()


@pytest.mark.parametrize(
    ("function", "word"),
    [
        (lambda z: z.numpy(force=True), "returned a ndarray"),
        (lambda z: None, "returned a NoneType"),
        (lambda z: z.sum(), "shape"),
        (lambda z: z.sum(0, keepdim=True), "shape"),
        (lambda z: z[:, :0], "shape"),
    ],
)
def test_callables_that_return_other_than_a_tensor_of_rows_are_refused(function, word):
    with pytest.raises((TypeError, ValueError), match=f"estimator .*{word}"):
        MatryoshkaProjection(estimator=function).fit(X)


def test_columns_of_data_frames_are_those_of_the_estimator():
    frame = pd.DataFrame(X).add_prefix("c")
    scaled = make_pipeline(
        ColumnTransformer([("scaled", StandardScaler(), ["c0", "c5"])], remainder="passthrough"), Ridge()
    )
    scaled.fit(frame, VALUES)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        MatryoshkaProjection(estimator=scaled, max_iter=0).fit(frame)
    with pytest.raises(ValueError, match="in its order"):
        MatryoshkaProjection(estimator=scaled, max_iter=0).fit(frame[frame.columns[::-1]])


def test_data_frames_have_the_names_of_the_width_that_is_asked_for():
    model = MatryoshkaProjection(5, max_iter=0).set_output(transform="pandas").fit(X)
    for width in (2, 5, 12, 0.5):
        found = model.transform(X, n_components=width)
        n = found.shape[1]
        assert found.columns.tolist() == [f"matryoshkaprojection{i}" for i in range(n)]
        np.testing.assert_array_equal(found, model.truncate(width).transform(X))
    assert model.transform(X).shape[1] == 5
    for width in (1.5, 0.0, -0.5):
        with pytest.raises(ValueError, match=f"n_components={width}"):
            model.transform(X, n_components=width)


def test_y_alone_makes_a_linear_predictor(digits):
    A, B, a, b, _ = digits
    names = np.array(list("abcdefghij"))[a]
    model = MatryoshkaProjection(9, max_iter=0, init="gradient").fit(A, names)
    score = LogisticRegression(max_iter=500).fit(model.transform(A), a).score(model.transform(B), b)
    assert score > LogisticRegression(max_iter=500).fit(PCA(9).fit_transform(A), a).score(PCA(9).fit(A).transform(B), b)
    rows, y = load_diabetes(return_X_y=True)
    first = MatryoshkaProjection(1, random_state=0).fit(rows, y).transform(rows)
    assert LinearRegression().fit(first, y).score(first, y) > 0.95 * Ridge(0.01).fit(rows, y).score(rows, y)


def test_scale_is_that_of_the_rows():
    y = X[:, 0] - X[:, 3] + 0.1 * X[:, 5] ** 2
    here = MatryoshkaProjection(max_iter=30, random_state=0).fit(X, y).transform(X)
    for scale in (1e-25, 1e25):
        there = MatryoshkaProjection(max_iter=30, random_state=0).fit(X * scale, y * scale).transform(X * scale)
        np.testing.assert_allclose(there / scale, here, atol=1e-5 * np.abs(here).max())


# Groups


def test_adaptive_groups_take_what_the_predictor_uses():
    rows = RNG.normal(size=(400, 32))
    W = torch.zeros(32, 3, dtype=torch.float64)
    W[:16] = torch.from_numpy(RNG.normal(size=(16, 3)))
    params = {"estimator": lambda z: torch.tanh(z @ W / 2), "n_groups": 4, "rank_schedule": [1, 2, 3, 4, 6, 8]}
    params |= {"max_iter": 40, "random_state": 0}
    adaptive, uniform = (
        MatryoshkaProjection(0.25, group_ranks=how, **params).fit(rows) for how in ("adaptive", "uniform")
    )
    assert sum(adaptive.group_ranks_[:2]) >= 0.8 * 8
    assert uniform.group_ranks_ == [2, 2, 2, 2]
    blocks = np.abs(adaptive.components_.reshape(32, 4, 8)).sum(2) > 1e-12
    assert np.all(blocks.sum(1) == 1)
    np.testing.assert_allclose(adaptive.components_ @ adaptive.components_.T, np.eye(32), atol=1e-12)
    loss = [np.square(params["estimator"](torch.from_numpy(rebuilt(m, rows, 8))).numpy()
            - params["estimator"](torch.from_numpy(rows)).numpy()).mean() for m in (adaptive, uniform)]  # fmt: skip
    assert loss[0] < 0.6 * loss[1]
    assert adaptive.truncate(32).group_ranks_ == [8, 8, 8, 8]


def test_orders_of_columns():
    assert uniform_order(2, 2) == [(0, 0), (1, 0), (0, 1), (1, 1)]
    assert descending_order(torch.tensor([[3.0, 1.0], [4.0, 2.0]])) == [(1, 0), (0, 0), (1, 1), (0, 1)]
    worth = torch.tensor([[5.0, 1.0, 0.1, 0.1], [3.0, 2.0, 0.5, 0.2]])  # of each column: losses add up
    after = torch.cat([torch.zeros(2, 1), worth.cumsum(1)], 1)

    def loss(widths):
        return worth.sum() - after[0][widths[:, 0]] - after[1][widths[:, 1]]

    order = greedy_order(loss, 2, [1, 2, 3, 4])
    assert order == [(0, 0), (1, 0), (1, 1), (0, 1), (1, 2), (1, 3), (0, 2), (0, 3)]
    many = greedy_order(lambda widths: (128.0 - widths.sum(1)).double(), 128, [1])
    assert sorted(many) == [(group, 0) for group in range(128)]


def test_flat_components_and_rotations_are_each_other():
    U = torch.linalg.qr(torch.from_numpy(RNG.normal(size=(3, 4, 4)))).Q
    flat, groups = flat_components(U, uniform_order(3, 4))
    back = rotation_of(flat, groups, 3)
    torch.testing.assert_close(back @ back.mT, torch.eye(4, dtype=torch.float64).expand(3, 4, 4))
    torch.testing.assert_close((back * U).sum(1).abs(), torch.ones(3, 4, dtype=torch.float64))


# Widths, and what is refused


def test_any_width_can_be_taken_and_inverted():
    model = MatryoshkaProjection(0.5, objective="reconstruction").fit(X)
    assert model.transform(X).shape[1] == model.n_components_ == len(model.get_feature_names_out()) == 6
    small = model.truncate(3)
    np.testing.assert_allclose(small.transform(X), model.transform(X)[:, :3], rtol=1e-10, atol=1e-12)
    np.testing.assert_array_equal(model.transform(X, n_components=3), small.transform(X))
    assert small.get_params()["n_components"] == 3
    assert model.n_components_ == 6
    np.testing.assert_allclose(model.inverse_transform(model.transform(X, 12)), X)
    np.testing.assert_allclose(model.inverse_transform(small.transform(X)), rebuilt(model, X, 3))


@pytest.mark.parametrize(
    ("params", "word"),
    [
        ({"n_components": 13}, "n_components=13"),
        ({"n_groups": 5}, "n_groups=5"),
        ({"objective": "predictions"}, "estimator"),
        ({"rank_schedule": [0, 4]}, "rank_schedule"),
        ({"rank_schedule": []}, "rank_schedule"),
        ({"rank_schedule": [2.5]}, "rank_schedule"),
        ({"rank_schedule": ["a"]}, "rank_schedule"),
        ({"rank_schedule": [[1, 2]]}, "rank_schedule"),
    ],
)
def test_parameters_that_do_not_fit_the_data_are_named(params, word):
    with pytest.raises(ValueError, match=word):
        MatryoshkaProjection(**params).fit(X)


def test_wide_groups_and_widths_are_refused():
    with pytest.raises(ValueError, match="at most 4096"):
        MatryoshkaProjection().fit(np.zeros((2, 4097)))
    model = MatryoshkaProjection().fit(X)
    with pytest.raises(ValueError, match="n_components=13"):
        model.truncate(13)
    with pytest.raises(ValueError, match="13 columns"):
        model.inverse_transform(np.zeros((2, 13)))


def test_few_rows_constant_columns_and_constant_answers():
    two = MatryoshkaProjection(estimator=Ridge().fit(X, VALUES), max_iter=3).fit(X[:2])
    assert np.isfinite(two.transform(X)).all()
    wide = MatryoshkaProjection(max_iter=5, random_state=0).fit(np.c_[X, np.ones(300), X[:, 0]], CLASSES)
    assert np.isfinite(wide.transform(np.c_[X, np.ones(300), X[:, 0]])).all()
    still = MatryoshkaProjection(estimator=lambda z: 0 * z[:, :1], max_iter=5, random_state=0).fit(X)
    assert angle(still.components_[:3], PCA(3).fit(X).components_) < 1e-6


def test_it_says_where_training_did_not_end():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ConvergenceWarning, match="max_iter=20"):
            MatryoshkaProjection(estimator=lambda z: torch.sin(z), max_iter=20, tol=0.0, random_state=0).fit(X)
        MatryoshkaProjection(estimator=lambda z: torch.sin(z), max_iter=200, tol=0.9, random_state=0).fit(X)


@pytest.mark.cuda
def test_a_gpu_finds_the_same():
    net = nn.Sequential(nn.Linear(12, 16), nn.Tanh(), nn.Linear(16, 3))
    params = {"estimator": net, "max_iter": 20, "random_state": 0, "n_groups": 2, "group_ranks": "adaptive"}
    here, there = (MatryoshkaProjection(device=device, **params).fit(X) for device in ("cpu", "cuda"))
    np.testing.assert_allclose(here.components_, there.components_, atol=1e-3)
    np.testing.assert_allclose(here.score(X), there.score(X), rtol=1e-3, atol=1e-9)
