"""Attention by polynomials: answers, gradients, certificates and refusals."""

import pickle
import warnings
from math import comb, factorial

import numpy as np
import pytest
import torch
from sklearn.datasets import load_breast_cancer, load_diabetes, load_wine
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from sklowrank.neural import PolynomialAttentionClassifier, PolynomialAttentionRegressor, linear_attention

BOTH = [PolynomialAttentionClassifier, PolynomialAttentionRegressor]
both = pytest.mark.parametrize("Estimator", BOTH)


@pytest.fixture(autouse=True)
def quiet():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The certificate")
        yield


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(80, 5))
    return X, (X[:, 0] + X[:, 1] > 0).astype(int)


def make(Estimator, n_components=3, **params):
    return Estimator(n_components, **{"degree": 4, "method": "polynomial", "max_iter": 10, "random_state": 0, **params})


def series(t, degree):
    return sum(t**j / factorial(j) for j in range(degree + 1))


def in_ball(Z, components, norm_bound):
    P = Z @ components.T
    return P * np.minimum(1, norm_bound**0.5 / np.linalg.norm(P, axis=1, keepdims=True))


def draw(n=60, width=3, seed=0):
    rng = np.random.default_rng(seed)
    return [torch.from_numpy(rng.normal(size=size)) for size in ((n, width), (n, width), (n, 2))]


# The function


@pytest.mark.parametrize("degree", [2, 4, 6])
def test_linear_attention_is_that_of_the_matrix(degree):
    Q, K, V = draw()
    mass = torch.linspace(0, 2, 60, dtype=torch.float64)
    w = series(0.5 * (Q @ (K - K.mean(0)).T).numpy(), degree) * mass.numpy()
    expected = w @ V.numpy() / w.sum(1, keepdims=True)
    for batch_size in (7, 65536):
        found = linear_attention(Q, K, V, degree=degree, key_mass=mass, scale=0.5, batch_size=batch_size)
        np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("batch_size", [13, 65536])
def test_gradients_of_an_adapter_are_those_of_the_closed_form(batch_size):
    X, K, V = draw(width=4)
    Y, W, A = V.roll(1, 0), torch.eye(4, 3, dtype=torch.float64), torch.randn(2, 3, dtype=torch.float64)
    B = torch.zeros(4, 2, dtype=torch.float64, requires_grad=True)
    K = K[:, :3]
    outputs = linear_attention(X @ (W + B @ A), K, V, degree=4, batch_size=batch_size)
    (found,) = torch.autograd.grad((outputs - Y).square().sum() / 2, B)
    t = X @ W @ (K - K.mean(0)).T
    p, slope = series(t, 4), series(t, 3)
    D = p.sum(1, keepdim=True)
    O = p @ V / D
    R = O - Y
    dQ = ((slope / D) * (R @ V.T - (R * O).sum(1, keepdim=True))) @ (K - K.mean(0))
    torch.testing.assert_close(found, X.T @ dQ @ A.T, rtol=1e-9, atol=1e-11)


def test_errors_of_outputs_and_gradients_fall_with_the_degree():
    """Of odd weights or another kernel than exp they would not."""
    Q, K, V = draw(300)
    Q, K, found = 0.4 * Q, 0.4 * K, []

    def answer(attention):
        q = Q.clone().requires_grad_()
        outputs = attention(q, K, V)
        return outputs.detach(), torch.autograd.grad(outputs.square().sum(), q)[0]

    exact = answer(lambda q, k, v: torch.softmax(q @ k.T, 1) @ v)
    for degree in (2, 4, 6, 8):
        near = answer(lambda q, k, v, g=degree: linear_attention(q, k, v, degree=g))
        found.append([float((a - b).abs().max()) for a, b in zip(near, exact)])
    assert (np.array(found[:-1]) > 4 * np.array(found[1:])).all()


def test_linear_attention_keeps_the_type_and_reads_no_other_rows():
    Q, K, V = (part.float() for part in draw())
    found = linear_attention(Q, K, V)
    assert found.dtype == torch.float32
    torch.testing.assert_close(linear_attention(Q[3:5], K, V), found[3:5])
    torch.testing.assert_close(linear_attention(Q, K + 5, V), found, rtol=1e-4, atol=1e-5)
    assert linear_attention(Q[:0], K, V).shape == (0, 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"degree": 3}, "degree=3 is odd"),
        ({"degree": 98}, "degree=98 makes 166650 features"),
        ({"K": torch.ones(60, 2)}, "equal widths"),
        ({"V": torch.ones(59, 2)}, "equally many rows"),
        ({"V": torch.ones(60)}, "two dimensions"),
        ({"key_mass": torch.ones(3)}, "key_mass has shape"),
        ({"key_mass": torch.linspace(-1, 1, 60)}, "key_mass has negative numbers"),
        ({"key_mass": torch.zeros(60)}, "zero for all keys"),
        ({"key_mass": torch.full((60,), torch.nan)}, "negative numbers or NaN"),
        ({"Q": torch.ones(60, 3, dtype=torch.int64)}, "Q is to be floating"),
        ({"V": torch.ones(60, 2, dtype=torch.complex64)}, "need real numbers"),
        ({"Q": np.ones((60, 3))}, "'Q' parameter"),
    ],
)
def test_linear_attention_says_what_does_not_fit(change, message):
    Q, K, V = draw()
    with pytest.raises(ValueError, match=message):
        linear_attention(**{"Q": Q, "K": K, "V": V, **change})


@pytest.mark.cuda
def test_linear_attention_on_a_gpu():
    Q, K, V = draw(1000)
    found = linear_attention(Q.cuda(), K.cuda(), V.cuda(), batch_size=128)
    torch.testing.assert_close(found.cpu(), linear_attention(Q, K, V))


# The model


@pytest.mark.parametrize("key_bias", ["gaussian", "none"])
@pytest.mark.parametrize("tie", [True, False])
@pytest.mark.parametrize("method", ["polynomial", "exact"])
def test_probabilities_are_those_of_the_matrix(table, method, tie, key_bias):
    X, y = table
    model = make(PolynomialAttentionClassifier, method=method, tie=tie, key_bias=key_bias, norm_bound=2.0).fit(X, y)
    scaler = StandardScaler().fit(X)
    X_new = np.vstack([X, 100 * X[:3]])
    Q = in_ball(scaler.transform(X_new), model.components_, 2.0)
    K = in_ball(scaler.transform(X), model.components_ if tie else model.base_components_, 2.0)
    w = (np.exp if method == "exact" else lambda t: series(t, 4))(Q @ (K - K.mean(0)).T)
    w = w * np.exp(-np.sum(K**2, axis=1) / 2) if key_bias == "gaussian" else w
    np.testing.assert_allclose(model.predict_proba(X_new), w @ np.eye(2)[y] / w.sum(1, keepdims=True), atol=1e-12)


@pytest.mark.parametrize("method", ["polynomial", "exact"])
def test_the_first_loss_leaves_each_row_out_of_its_own_average(method):
    X, y = load_diabetes(return_X_y=True)
    model = make(PolynomialAttentionRegressor, method=method, max_iter=1).fit(X, y)
    Q = in_ball(StandardScaler().fit_transform(X), model.base_components_, 4.0)
    t = Q @ (Q - Q.mean(0)).T
    w = (np.exp(t) if method == "exact" else series(t, 4)) * np.exp(-np.sum(Q**2, axis=1) / 2)
    np.fill_diagonal(w, 0)
    units = (y - y.mean()) / y.std()
    assert model.loss_curve_[0] == pytest.approx(np.mean((w @ units / w.sum(1) - units) ** 2), rel=1e-9)


def test_components_are_whitened_at_the_start_and_an_adapter_behind_it(table):
    X, y = table
    model = make(PolynomialAttentionClassifier, adapter_rank=2).fit(X, y)
    start = StandardScaler().fit_transform(X) @ model.base_components_.T
    np.testing.assert_allclose(np.cov(start.T, bias=True), np.eye(3), atol=1e-10)
    assert model.adapter_A_.shape == (2, 5)
    assert model.adapter_B_.shape == (3, 2)
    np.testing.assert_allclose(model.components_, model.base_components_ + model.adapter_B_ @ model.adapter_A_)
    np.testing.assert_allclose(model.transform(X), StandardScaler().fit_transform(X) @ model.components_.T, atol=1e-12)
    still = make(PolynomialAttentionClassifier, max_iter=0).fit(X, y)
    assert np.array_equal(still.components_, still.base_components_)
    assert still.n_iter_ == 0


def test_training_learns_and_is_as_good_as_neighbours():
    X, y = load_wine(return_X_y=True)
    A, B, a, b = train_test_split(X, y, test_size=0.3, random_state=0, stratify=y)
    start = make(PolynomialAttentionClassifier, 6, max_iter=0).fit(A, a)
    model = make(PolynomialAttentionClassifier, 6, max_iter=100).fit(A, a)

    def log_loss(fitted):
        return -np.log(fitted.predict_proba(B)[np.arange(len(b)), b]).mean()

    scaler = StandardScaler().fit(A)
    nearest = KNeighborsClassifier(5).fit(scaler.transform(A), a).score(scaler.transform(B), b)
    assert log_loss(model) < 0.4 * log_loss(start)
    assert model.score(B, b) >= nearest


def test_rows_in_another_order_give_the_same_model():
    X, y = load_breast_cancer(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(X))
    one = make(PolynomialAttentionClassifier, degree="auto", max_features=50).fit(X, y)
    other = make(PolynomialAttentionClassifier, degree="auto", max_features=50).fit(X[order], y[order])
    np.testing.assert_allclose(one.predict_proba(X), other.predict_proba(X), atol=1e-8)
    first, second = ({**model.certificate_, "satisfied": 0} for model in (one, other))
    assert first == pytest.approx(second, rel=1e-6)


@both
def test_the_certificate_does_not_depend_on_the_order_of_equal_rows_with_other_targets(Estimator):
    rng = np.random.default_rng(0)
    X, y, order = rng.integers(0, 3, (600, 4)), rng.integers(0, 3, 600), rng.permutation(600)
    one, other = (make(Estimator, on_violation="auto").fit(X[o], y[o]) for o in (np.arange(600), order))
    first, second = ({**model.certificate_, "satisfied": 0} for model in (one, other))
    assert first == pytest.approx(second, rel=1e-6)


@both
def test_batch_size_and_precision_change_rounding_alone(table, Estimator):
    X, y = table
    model, small = (make(Estimator, batch_size=size).fit(X, y) for size in ("auto", 7))
    np.testing.assert_allclose(model.components_, small.components_, rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(model.value_features_, small.value_features_, rtol=1e-9, atol=1e-10)
    single = make(Estimator).fit(X.astype(np.float32), y)
    assert single.transform(X.astype(np.float32)).dtype == np.float32
    np.testing.assert_allclose(single.components_, model.components_, atol=1e-4)


@both
def test_the_model_has_sums_and_no_rows(table, Estimator):
    X, y = table
    few, many = (make(Estimator).fit(np.tile(X, (k, 1)), np.tile(y, k)) for k in (1, 30))
    assert len(pickle.dumps(many)) < 1.1 * len(pickle.dumps(few))
    assert many.key_features_sum_.shape == (comb(7, 3),) == (many.n_features_map_,)
    np.testing.assert_allclose(many.key_features_sum_[0], 30 * few.key_features_sum_[0], rtol=0.1)


def test_constant_columns_wide_tables_and_twins():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(12, 40)), np.arange(12) % 2
    model = make(PolynomialAttentionClassifier, 12, degree=2).fit(X, y)  # eleven components vary
    assert not model.base_components_[11].any()
    assert model.base_components_[10].any()
    flat = make(PolynomialAttentionClassifier).fit(np.c_[X, np.full(12, 7.0)], y)
    np.testing.assert_allclose(flat.components_[:, :40], make(PolynomialAttentionClassifier).fit(X, y).components_)
    assert not flat.components_[:, 40].any()
    assert np.isfinite(make(PolynomialAttentionClassifier, 1).fit([[0.0], [1.0]], [0, 1]).predict_proba([[5.0]])).all()
    same = make(PolynomialAttentionClassifier).fit(np.ones((6, 4)), [0, 1, 1, 0, 1, 1])
    np.testing.assert_allclose(same.predict_proba(np.zeros((1, 4))), [[1 / 3, 2 / 3]])


def test_a_constant_target_is_predicted():
    X = np.random.default_rng(0).normal(size=(30, 3))
    model = make(PolynomialAttentionRegressor).fit(X, np.full(30, 2.5))
    np.testing.assert_allclose(model.predict(X), 2.5)
    assert model.certificate_["probed_error"] == 0


@pytest.mark.parametrize("unit", [1e-25, 1e25])
def test_units_of_targets_do_not_matter(table, unit):
    X, _ = table
    y = np.c_[X[:, 0] + X[:, 1], np.ones(80)]
    one, other = make(PolynomialAttentionRegressor).fit(X, y), make(PolynomialAttentionRegressor).fit(X, unit * y)
    np.testing.assert_allclose(other.predict(X) / unit, one.predict(X), rtol=1e-8)
    assert other.certificate_["output_bound"] / unit == pytest.approx(one.certificate_["output_bound"])


# Choices and certificates


@pytest.mark.parametrize("degree", [2, 4])
@pytest.mark.parametrize("norm_bound", [0.25, 1.0])
def test_the_certificate_holds_on_new_rows(degree, norm_bound):
    X, y = load_diabetes(return_X_y=True)
    near, exact = (
        make(PolynomialAttentionRegressor, degree=degree, norm_bound=norm_bound, max_iter=0, method=method).fit(
            X[:300], y[:300]
        )
        for method in ("polynomial", "exact")
    )
    error = np.abs(near.predict(X) - exact.predict(X)).max()
    assert error <= near.certificate_["output_bound"]
    on_training_rows = np.abs(near.predict(X[:300]) - exact.predict(X[:300])).max()
    assert 0.3 <= near.certificate_["probed_error"] / on_training_rows <= 1 + 1e-9
    assert near.max_logit_ <= near.certificate_["B"] * (1 + 1e-12)
    assert exact.certificate_["output_bound"] == 0
    assert exact.certificate_["satisfied"] == "guaranteed"


def test_the_probed_gradient_error_falls_with_the_degree(table):
    X, y = table
    found = [
        make(PolynomialAttentionClassifier, degree=g, norm_bound=1.0).fit(X, y).certificate_["probed_gradient_error"]
        for g in (2, 4, 6)
    ]
    assert found[0] > 5 * found[1] > 25 * found[2] > 0


def test_degree_auto_is_the_smallest_one_that_is_guaranteed_or_found_to_be_good_enough():
    X, y = load_diabetes(return_X_y=True)

    def fitted(**params):
        return make(PolynomialAttentionRegressor, **{"degree": "auto", "max_iter": 0, **params}).fit(X, y)

    small = fitted(norm_bound=0.25, error_tol=1e-3)
    assert small.certificate_["satisfied"] == "guaranteed"
    assert small.certificate_["output_bound"] <= 1e-3 * np.ptp(y)
    less = fitted(norm_bound=0.25, error_tol=1e-3, degree=small.degree_ - 2)
    assert less.certificate_["output_bound"] > 1e-3 * np.ptp(y)
    found = fitted(norm_bound=2.0, error_tol=1e-2, max_features=100)
    assert found.certificate_["satisfied"] == "probed"
    assert found.certificate_["probed_error"] <= 1e-2 * np.ptp(y) < found.certificate_["output_bound"]
    assert fitted(norm_bound=9.0, error_tol=1e-6, max_features=40).degree_ == 4  # the largest with 40 features


def test_method_auto_is_exact_for_few_rows(table):
    X, y = table
    few = make(PolynomialAttentionClassifier, method="auto", degree=6).fit(X[:30], y[:30])
    assert few.degree_ is few.n_features_map_ is few.key_features_sum_ is few.value_features_ is None
    assert make(PolynomialAttentionClassifier, method="auto", degree=2).fit(X, y).degree_ == 2


def test_on_violation(table):
    X, y = table
    bad = make(PolynomialAttentionClassifier, degree=2, norm_bound=8.0)
    with pytest.warns(UserWarning, match=r"certificate does not meet error_tol=1.0e-02.*norm_bound"):
        assert bad.fit(X, y).certificate_["satisfied"] == "no"
    with pytest.raises(ValueError, match="certificate does not meet error_tol"):
        make(PolynomialAttentionClassifier, degree=2, norm_bound=8.0, on_violation="raise").fit(X, y)
    exact = make(PolynomialAttentionClassifier, degree=2, norm_bound=8.0, on_violation="exact").fit(X, y)
    assert exact.certificate_["satisfied"] == "guaranteed"
    assert exact.degree_ is None
    assert np.array_equal(exact.components_, bad.components_)
    Q = in_ball(StandardScaler().fit_transform(X), exact.components_, 8.0)
    w = np.exp(Q @ Q.T - np.sum(Q**2, axis=1) / 2)
    np.testing.assert_allclose(exact.predict_proba(X), w @ np.eye(2)[y] / w.sum(1, keepdims=True), atol=1e-10)


def warnings_of(model, X, y):
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        model.fit(X, y)
    return [str(w.message) for w in found]


def test_defaults_warn_only_where_the_polynomial_predicts_worse_than_exact_attention():
    X, y = load_diabetes(return_X_y=True)
    model = PolynomialAttentionRegressor(method="polynomial", random_state=0, max_iter=30)
    assert not warnings_of(model, X, y)
    assert model.certificate_["satisfied"] == "no"
    assert 1 < model.certificate_["probed_loss_ratio"] < 1.1
    (strict,) = warnings_of(model.set_params(on_violation="warn"), X, y)
    assert "certificate does not meet error_tol" in strict
    (worse,) = warnings_of(model.set_params(on_violation="auto", degree=2), X, y)
    assert f"the loss is {model.certificate_['probed_loss_ratio']:.2f} times" in worse
    assert model.certificate_["probed_loss_ratio"] > 1.1


def test_the_loss_ratio_is_that_of_rows_predicted_by_all_others(table):
    X, y = table
    model = make(PolynomialAttentionClassifier, degree=2, max_iter=0).fit(X, y)
    Q = in_ball(StandardScaler().fit_transform(X), model.components_, 4.0)
    losses = []
    for of in (lambda t: series(t, 2), np.exp):
        w = of(Q @ (Q - Q.mean(0)).T) * np.exp(-np.sum(Q**2, axis=1) / 2)
        np.fill_diagonal(w, 0)
        losses.append(-np.log((w @ np.eye(2)[y] / w.sum(1, keepdims=True))[np.arange(80), y]).mean())
    assert model.certificate_["probed_loss_ratio"] == pytest.approx(losses[0] / losses[1], rel=1e-9)
    exact = make(PolynomialAttentionClassifier, degree=2, max_iter=0, on_violation="exact").fit(X, y)
    assert exact.certificate_["probed_loss_ratio"] == 1


def test_violations_are_shares_of_the_range_whatever_the_units(table):
    X, _ = table
    y = X[:, :2] * [1.0, 1e6]
    bad = make(PolynomialAttentionRegressor, degree=2, norm_bound=8.0, on_violation="warn")
    (one,), (other,) = warnings_of(bad, X, y), warnings_of(bad, X, 1e3 * y)
    assert one == other


def test_tol_ends_a_fit_once_the_loss_stands_still(table):
    X, y = table
    model = make(PolynomialAttentionClassifier, max_iter=300, tol=1e-2).fit(X, y)
    assert 20 < model.n_iter_ < 300
    former, last = model.loss_curve_[-21], model.loss_curve_[-1]
    assert (former - last) / former <= 1e-2


@both
@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"degree": 3}, "degree=3 is odd"),
        ({"n_components": 6}, "n_components=6 is too large for X with n_features=5"),
        ({"n_components": 13}, "n_components"),
        ({"n_components": 5, "degree": 12, "max_features": 100}, "max_features=100 is too small for the 6188 features"),
        ({"degree": "auto", "max_features": 5}, "max_features=5 is too small"),
    ],
)
def test_parameters_that_do_not_fit_are_named(table, Estimator, params, message):
    with pytest.raises(ValueError, match=message):
        make(Estimator, **params).fit(*table)


@pytest.mark.cuda
@both
def test_devices_agree(table, Estimator):
    X, y = table
    cpu, gpu = (make(Estimator, device=device).fit(X, y) for device in ("cpu", "cuda"))
    np.testing.assert_allclose(cpu.predict(X), gpu.predict(X), atol=1e-8)
