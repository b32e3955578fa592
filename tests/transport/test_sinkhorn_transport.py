"""Maps between tables: barycentres of the plan, their limits, and what is refused."""

import warnings

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from scipy.spatial.distance import cdist
from sklearn import config_context
from sklearn.callback import ScoringMonitor
from sklearn.exceptions import ConvergenceWarning
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline

from sklowrank._core.workspace import open_workspace
from sklowrank.transport import SinkhornTransport
from sklowrank.transport._entropic_map import costs, unlike, weighted_median
from sklowrank.transport._samples import drawn_rows

RNG = np.random.default_rng(3)
X, NEW = RNG.normal(size=(120, 3)), RNG.normal(size=(40, 3))


def drift(table):
    return table * [1.2, 0.8, 1.0] + [3.0, -1.0, 0.5]


T = drift(RNG.normal(size=(150, 3)))


@pytest.fixture(scope="module")
def fitted():
    return SinkhornTransport(random_state=0).fit(X, X_target=T)


def test_training_rows_are_moved_to_barycentres(fitted):
    plan = fitted.coupling_
    assert np.abs(fitted.transform(X) - plan @ T / plan.sum(1, keepdims=True)).max() <= 1e-6
    assert np.abs(fitted.inverse_transform(T) - plan.T @ X / plan.sum(0)[:, None]).max() <= 1e-6


def test_a_drift_is_undone_on_new_rows(fitted):
    error = np.sqrt(((fitted.transform(NEW) - drift(NEW)) ** 2).sum(1).mean())
    alone = np.sqrt(((NEW - drift(NEW)) ** 2).sum(1).mean())
    assert error < 0.3 * alone


def test_attributes_agree(fitted):
    cost = cdist(X, T, "sqeuclidean")
    assert np.allclose(fitted.cost_, cost)
    assert fitted.reg_ == pytest.approx(0.05 * np.median(cost))
    form = np.exp((fitted.potentials_source_[:, None] + fitted.potentials_target_ - cost) / fitted.reg_)
    assert np.abs(form - fitted.coupling_).sum() <= 1e-7
    assert fitted.distance_ == pytest.approx((cost * fitted.coupling_).sum())
    assert fitted.n_iter_ == fitted.n_sinkhorn_ + fitted.n_newton_


def test_solvers_agree(fitted):
    sweeps = SinkhornTransport(solver="sinkhorn").fit(X, X_target=T)
    assert sweeps.n_newton_ == 0
    assert np.abs(sweeps.transform(NEW) - fitted.transform(NEW)).max() <= 1e-5
    assert SinkhornTransport(0.2, solver="auto").fit(X, X_target=T).n_newton_ == 0
    assert SinkhornTransport(0.01, solver="auto").fit(X, X_target=T).n_newton_ > 0


def test_a_domain_divides_rows_and_labels(fitted):
    order = RNG.permutation(270)
    rows, domain = np.vstack([X, T])[order], np.r_[np.ones(120), -np.ones(150)][order]
    both = SinkhornTransport().fit(rows, sample_domain=domain)
    assert np.abs(both.transform(NEW) - fitted.transform(NEW)).max() <= 1e-6
    frame = pd.DataFrame(rows, columns=list("abc"))
    of_frame = SinkhornTransport().fit(frame, sample_domain=domain)
    assert np.array_equal(of_frame.cost_, both.cost_)
    labels = np.r_[X[:, 0] > 0, T[:, 0] > 3].astype(int)
    divided = SinkhornTransport(class_reg=1.0).fit(rows, labels[order], sample_domain=domain)
    given = SinkhornTransport(class_reg=1.0).fit(X, labels[:120], X_target=T, y_target=labels[120:])
    assert divided.distance_ == pytest.approx(given.distance_, rel=1e-6)


def test_class_reg_keeps_mass_within_classes():
    y, z = np.where(X[:, 0] > 0, "b", "a").astype(object), np.where(T[:, 0] > 3.5, "b", "a").astype(object)
    z[::2] = -1  # unknown

    def across(model):
        return model.coupling_[unlike(y, z).numpy()].sum()

    free, bound = (SinkhornTransport(class_reg=w).fit(X, y, X_target=T, y_target=z) for w in (0.0, 1.0))
    assert across(bound) < 0.1 * across(free)
    assert bound.distance_ < bound.cost_.max()
    assert np.array_equal(bound.cost_ > free.cost_, unlike(y, z).numpy())
    near = SinkhornTransport(class_reg=1.0, out_of_sample="nearest").fit(X, y, X_target=T, y_target=z)
    plan = bound.coupling_
    assert np.abs(near.transform(X) - plan @ T / plan.sum(1, keepdims=True)).max() <= 1e-6


def test_unknown_labels_are_unlike_none():
    found = unlike(np.array([0, 1, -1]), np.array([0.0, np.nan, -1.0, 1.0]))
    assert found.tolist() == [[False, False, False, True], [True, False, False, False], [False] * 4]


def test_nearest_rows_keep_their_offset(fitted):
    near = SinkhornTransport(out_of_sample="nearest").fit(X, X_target=T)
    assert np.abs(near.transform(X) - fitted.transform(X)).max() <= 1e-6
    nearest = cdist(NEW, X).argmin(1)
    assert np.abs(near.transform(NEW) - (fitted.transform(X)[nearest] + NEW - X[nearest])).max() <= 1e-6
    assert near.inverse_transform(T).shape == T.shape


def test_a_weight_of_two_equals_two_rows():
    weight = np.where(np.arange(150) < 40, 2.0, 1.0)
    twice = SinkhornTransport().fit(X, X_target=np.vstack([T, T[:40]]))
    weighted = SinkhornTransport().fit(X, X_target=T, target_weight=weight)
    assert weighted.reg_ == pytest.approx(twice.reg_)
    assert np.abs(twice.transform(NEW) - weighted.transform(NEW)).max() <= 1e-5
    hole = np.where(np.arange(120) < 20, 0.0, 1.0)
    left_out = SinkhornTransport().fit(X, X_target=T, source_weight=hole)
    assert np.abs(left_out.transform(NEW) - SinkhornTransport().fit(X[20:], X_target=T).transform(NEW)).max() <= 1e-5
    assert np.all(np.isneginf(left_out.potentials_source_[:20]))
    assert np.isfinite(left_out.transform(X)).all()
    assert np.isfinite(left_out.inverse_transform(T)).all()


def test_the_median_counts_weights():
    cost = torch.from_numpy(RNG.normal(size=(7, 6)))
    a, b = torch.tensor([1, 2, 3, 1, 1, 2, 2.0]), torch.tensor([2, 1, 1, 1, 3, 1.0])
    repeated = cost.repeat_interleave(a.long(), 0).repeat_interleave(b.long(), 1)
    assert weighted_median(cost, a.double() / 12, b.double() / 9) == pytest.approx(float(repeated.quantile(0.5)))
    flat = torch.ones(7).double(), torch.ones(6).double()
    assert weighted_median(cost, *flat) == pytest.approx(np.median(cost.numpy()))


def test_max_samples_bounds_the_plan_and_moves_all_rows(fitted):
    few = SinkhornTransport(max_samples=60, random_state=0).fit(X, X_target=T)
    assert few.cost_.shape == (60, 60)
    assert few.transform(X).shape == X.shape
    again = SinkhornTransport(max_samples=60, random_state=0).fit(X, X_target=T)
    assert np.array_equal(few.transform(NEW), again.transform(NEW))
    apart = np.sqrt(((few.transform(NEW) - fitted.transform(NEW)) ** 2).mean()) / T.std()
    assert apart < 0.4
    weight = np.where(np.arange(120) < 70, 1.0, 0.0)
    drawn = SinkhornTransport(max_samples=60, random_state=0).fit(X, X_target=T, source_weight=weight)
    assert np.isfinite(drawn.potentials_source_).all()  # of rows with weight alone


def test_blocks_of_rows_do_not_change_the_map(fitted, monkeypatch):
    from sklowrank.transport import _entropic_map

    expected = fitted.transform(NEW)
    monkeypatch.setattr(_entropic_map, "rows_per_block", lambda *args: 7)
    assert np.abs(fitted.transform(NEW) - expected).max() <= 1e-10


def test_order_of_rows_and_columns_does_not_matter(fitted):
    rows, target_rows, columns = RNG.permutation(120), RNG.permutation(150), [2, 0, 1]
    turned = SinkhornTransport().fit(X[rows][:, columns], X_target=T[target_rows][:, columns])
    assert np.abs(turned.transform(NEW[:, columns]) - fitted.transform(NEW)[:, columns]).max() <= 1e-5


def test_single_precision_in_and_out(fitted):
    model = SinkhornTransport().fit(X.astype(np.float32), X_target=T.astype(np.float32))
    answer = model.transform(NEW.astype(np.float32))
    assert answer.dtype == model.X_source_.dtype == np.float32
    assert model.potentials_source_.dtype == np.float64
    assert np.abs(answer - fitted.transform(NEW)).max() <= 1e-4


@pytest.mark.parametrize("metric", ["sqeuclidean", "cosine"])
@pytest.mark.parametrize("out_of_sample", ["entropic", "nearest"])
def test_sparse_rows_are_moved_like_dense_ones(metric, out_of_sample):
    source, target = np.abs(X) * (X > 0.3) + [0.1, 0, 0], np.abs(T) * (T > 0) + [0, 0.1, 0]
    params = {"metric": metric, "out_of_sample": out_of_sample}
    dense = SinkhornTransport(**params).fit(source, X_target=target)
    sparse = SinkhornTransport(**params).fit(sp.csr_array(source), X_target=sp.csr_array(target))
    assert np.abs(dense.transform(source) - sparse.transform(sp.csr_array(source))).max() <= 1e-5
    assert np.abs(dense.inverse_transform(target) - sparse.inverse_transform(target)).max() <= 1e-5


@pytest.mark.parametrize("metric", ["cityblock", "euclidean", lambda a, b: np.abs(a - b).max()])
def test_other_metrics(metric):
    model = SinkhornTransport(metric=metric).fit(X, X_target=T)
    reference = cdist(X, T, metric)
    assert np.allclose(model.cost_, reference)
    plan = model.coupling_
    assert np.abs(model.transform(X) - plan @ T / plan.sum(1, keepdims=True)).max() <= 1e-6


def test_units_of_the_entropy():
    cost = cdist(X, T, "cityblock")
    for scale, unit in (("median", np.median(cost)), ("max", cost.max()), (None, 1.0)):
        assert SinkhornTransport(0.1, metric="cityblock", reg_scale=scale).fit(X, X_target=T).reg_ == pytest.approx(
            0.1 * unit
        )
    similar = SinkhornTransport(metric=lambda a, b: -np.exp(-np.square(a - b).sum())).fit(X, X_target=X)
    assert similar.reg_ > 0
    assert similar.n_iter_ < 100


def test_costs_far_from_the_origin():
    far = X + 1e6
    found = costs(torch.from_numpy(far), torch.from_numpy(far), "sqeuclidean", torch.device("cpu")).numpy()
    assert np.abs(found - cdist(far, far, "sqeuclidean")).max() <= 1e-8


def test_tensors(fitted):
    with config_context(array_api_dispatch=True):
        model = SinkhornTransport().fit(torch.from_numpy(X), X_target=torch.from_numpy(T))
        answer = model.transform(torch.from_numpy(NEW))
        assert isinstance(model.coupling_, torch.Tensor)
        assert isinstance(model.X_target_, torch.Tensor)
    assert np.abs(answer.numpy() - fitted.transform(NEW)).max() <= 1e-6


@pytest.mark.cuda
def test_on_a_gpu(fitted):
    there = SinkhornTransport(device="cuda").fit(X, X_target=T)
    assert np.abs(there.transform(NEW) - fitted.transform(NEW)).max() <= 1e-5


@pytest.mark.parametrize("rows", [np.ones((5, 2)), np.zeros((1, 2)), np.repeat(np.eye(2), 3, axis=0)])
def test_constant_and_repeated_rows(rows):
    model = SinkhornTransport().fit(rows, X_target=rows[:1] + 1)
    assert np.allclose(model.transform(rows), rows[:1] + 1)
    alone = SinkhornTransport().fit(rows)
    assert np.isfinite(alone.transform(rows)).all()
    assert np.allclose(alone.transform(rows).mean(0), rows.mean(0))


def test_frames_and_pipelines():
    y = (X[:, 0] > 0).astype(int)
    frame, other = pd.DataFrame(X, columns=list("abc")), pd.DataFrame(T, columns=list("abc"))
    out = SinkhornTransport().set_output(transform="pandas").fit(frame, X_target=other).transform(frame)
    assert list(out.columns) == list("abc")
    with pytest.raises(ValueError, match="X_target: The feature names should match"):
        SinkhornTransport().fit(frame, X_target=other[["b", "a", "c"]])
    pipe = make_pipeline(SinkhornTransport(), KNeighborsClassifier())
    assert pipe.fit(frame, y, sinkhorntransport__X_target=other).score(frame, y) > 0.85


@pytest.mark.parametrize(
    ("params", "given", "match"),
    [
        ({}, {"X_target": T[:, :2]}, "X_target: X has 2 features"),
        ({}, {"X_target": np.where(T > 5, np.nan, T)}, "X_target: .*NaN"),
        ({}, {"X_target": T, "sample_domain": np.ones(120)}, "sample_domain says which rows"),
        ({}, {"sample_domain": np.ones(120)}, "sample_domain has to be positive"),
        ({}, {"sample_domain": np.r_[np.zeros(1), np.ones(60), -np.ones(59)]}, "sample_domain has to be positive"),
        ({}, {"sample_domain": np.ones(20)}, "inconsistent numbers of samples"),
        ({}, {"X_target": T, "source_weight": -np.ones(120)}, "source_weight has to be finite, at least 0"),
        ({}, {"X_target": T, "target_weight": np.ones(120)}, r"target_weight has shape \(120,\), but there are 150"),
        ({"class_reg": 1.0}, {"X_target": T, "y": np.ones(120), "y_target": np.ones(3)}, "inconsistent numbers"),
        ({"metric": lambda a, b: np.inf}, {"X_target": T}, "cost by metric=.* contains NaN or infinity"),
        (
            {"class_reg": 1.0},
            {"X_target": T, "y": np.ones(120), "y_target": ["a"] * 150},
            "y has classes such as 1.0, y_",
        ),
        (
            {"class_reg": 1.0},
            {"X_target": T, "y": np.ones((120, 2)), "y_target": np.ones(150)},
            "y should be a 1d array",
        ),
        ({}, {"y_target": np.ones(120)}, "Pass X_target too"),
        ({}, {"sample_domain": ["s"] * 60 + ["t"] * 60}, "sample_domain has values that are no numbers"),
        ({}, {"X_target": T, "source_weight": ["a"] * 120}, "source_weight has values that are no numbers"),
        ({"metric": "seuclidean"}, {"X_target": T}, "metric='seuclidean' failed: .*Use another metric"),
        ({"metric": "precomputed"}, {}, "'metric'"),
        ({"reg": 0.0}, {}, "'reg'"),
        ({"solver": "newton"}, {}, "'solver'"),
        ({"class_reg": -1.0}, {}, "'class_reg'"),
        ({"max_samples": 0}, {}, "'max_samples'"),
    ],
)
def test_refusals(params, given, match):
    with pytest.raises(ValueError, match=match):
        SinkhornTransport(**params).fit(X, **given)


def test_max_iter_warns():
    with pytest.warns(ConvergenceWarning, match="max_iter=4"):
        model = SinkhornTransport(0.001, max_iter=4).fit(X, X_target=T)
    assert model.n_iter_ == 4
    assert np.allclose(model.coupling_.sum(1), 1 / 120)


def test_a_large_shift_warns_and_centring_undoes_it():
    far = T + 100
    with pytest.warns(UserWarning, match=r"makes up \d+\.\d% of the mean cost.*Centre both tables"):
        shrunk = SinkhornTransport().fit(X, X_target=far).transform(X)
    moved = SinkhornTransport().fit(X - X.mean(0), X_target=far - far.mean(0)).transform(X - X.mean(0))
    assert shrunk.var(0).sum() < 0.1 * moved.var(0).sum()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        SinkhornTransport(0.001).fit(X, X_target=T + 10)  # a small entropy against the rest of the cost


@pytest.mark.parametrize("sparse", [False, True])
def test_a_large_shift_of_sparse_rows_warns(sparse):
    rows, other = sp.csr_array(np.eye(6)), sp.csr_array(np.eye(6) + 10)
    with pytest.warns(UserWarning, match="Centre both tables"):
        SinkhornTransport().fit(*((rows,) if sparse else (rows.toarray(),)), X_target=other)


def test_rounding_that_ends_a_fit_above_the_tolerance_warns():
    with pytest.warns(ConvergenceWarning, match="where rounding in float64 allows no less. Raise reg or tol"):
        SinkhornTransport(1e-12).fit(X, X_target=T)


def test_the_map_keeps_the_metric_of_the_fit(fitted):
    expected = fitted.transform(X), fitted.inverse_transform(T)
    other = SinkhornTransport(**fitted.get_params()).fit(X, X_target=T).set_params(metric="cityblock")
    assert np.allclose(other.transform(X), expected[0])
    assert np.allclose(other.inverse_transform(T), expected[1])


@pytest.mark.parametrize(
    "missing",
    [
        np.array([None, "b"], dtype=object),
        pd.Series([None, "b"], dtype="string"),
        pd.Series([None, "b"], dtype="category"),
        np.array(["-1", "b"]),
        pd.DataFrame({"y": [np.nan, "b"]}),
    ],
)
def test_each_kind_of_missing_class_is_unknown(missing):
    y = np.array(["a", "b"])[(X[:, 0] > 0).astype(int)]
    rows = T[:2]
    model = SinkhornTransport(class_reg=2.0).fit(X, y, X_target=rows, y_target=missing)
    penalty = model.cost_ - costs(torch.from_numpy(X), torch.from_numpy(rows), "sqeuclidean", "cpu").numpy()
    assert np.allclose(penalty[:, 0], 0)
    assert np.array_equal(penalty[:, 1] > 1, y == "a")


def test_class_reg_without_classes_warns():
    with pytest.warns(UserWarning, match="class_reg=1 has no effect without y and y_target"):
        SinkhornTransport(class_reg=1.0).fit(X, X_target=T)


def test_rows_are_drawn_in_proportion_to_their_weights():
    mass = torch.tensor([0.6, 0.0, *[0.01] * 40], dtype=torch.float64)
    total = torch.zeros(42, dtype=torch.float64)
    for seed in range(400):
        drawn, new = drawn_rows(mass, 20, open_workspace(X, random_state=seed).exact())
        assert np.isclose(float(new.sum()), 1)
        assert abs(float(new[0]) - 0.6) <= 0.05
        total[drawn] += new / 400
    assert np.allclose(total, mass, atol=0.01)
    even, new = drawn_rows(
        torch.full((21,), 1 / 21, dtype=torch.float64), 20, open_workspace(X, random_state=0).exact()
    )
    assert len(even) == 20
    assert np.allclose(new, 1 / 20)


def test_a_heavy_row_is_in_the_plan_of_a_large_table():
    weights = np.r_[120.0, np.full(119, 1.0)]
    model = SinkhornTransport(max_samples=20, random_state=0).fit(X, X_target=T, source_weight=weights)
    heavy = int(np.argmin(np.abs(model.X_source_ - X[0]).sum(1)))
    assert np.array_equal(model.X_source_[heavy], X[0])
    assert 0.45 <= model.coupling_.sum(1)[heavy] <= 0.55


def test_callbacks_score_the_rows_of_the_source_with_their_labels():
    rows, domain = np.concatenate([X, T]), np.repeat([1, -1], [len(X), len(T)])
    seen = []

    def score(fitted, X, y):
        seen.append((len(X), y.tolist()))
        return 0.0

    model = SinkhornTransport(max_iter=3, tol=1.0).set_callbacks(ScoringMonitor(scoring={"score": score}))
    model.fit(rows, np.arange(len(rows)), sample_domain=domain)
    assert seen
    assert all(sizes == (len(X), list(range(len(X)))) for sizes in seen)
