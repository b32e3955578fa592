"""Models for a table without labels."""

import warnings

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from sklearn import config_context
from sklearn.datasets import make_moons
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from sklowrank.transport import OTAdaptationClassifier, OTAdaptationRegressor, SinkhornTransport


def moons(seed, n=200):
    X, y = make_moons(n, noise=0.1, random_state=seed)
    T, t = make_moons(n, noise=0.1, random_state=seed + 50)
    w = np.deg2rad(40)
    return X, y, T @ np.array([[np.cos(w), np.sin(w)], [-np.sin(w), np.cos(w)]]) + [2.0, 1.0], t


X, Y, T, LABELS = moons(0)


def test_moons_that_are_turned():
    """The baselines, as they are and centred, fall behind."""
    base = KNeighborsClassifier()
    ours = OTAdaptationClassifier(base).fit(X, Y, X_target=T).score(T, LABELS)
    plain = base.fit(X, Y).score(T, LABELS)
    centred = base.fit(X - X.mean(0), Y).score(T - T.mean(0), LABELS)
    assert ours > 0.93
    assert ours > max(plain, centred) + 0.07


def test_columns_that_are_warped():
    rng = np.random.default_rng(5)
    source, there = rng.uniform(-1, 1, size=(200, 2)), rng.uniform(-1, 1, size=(200, 2))
    y, z = (np.sin(3 * table[:, 0]) + table[:, 1] for table in (source, there))
    warped = np.c_[np.exp(1.2 * there[:, 0]) + 1.5, 1.5 * there[:, 1] + 0.375 * np.sin(3 * there[:, 1]) - 0.5]
    base = KNeighborsRegressor()
    scaled = base.fit(StandardScaler().fit_transform(source), y).score(StandardScaler().fit_transform(warped), z)
    assert OTAdaptationRegressor(base).fit(source, y, X_target=warped).score(warped, z) > scaled + 0.03
    both = OTAdaptationRegressor(base).fit(source, np.c_[y, -y], X_target=warped).predict(warped)
    assert both.shape == (200, 2)


def test_shares_of_classes_that_differ_cost_labels():
    """As the documentation says: about as many as the shares differ by."""
    rng = np.random.default_rng(0)
    centres = np.array([[0.0, 0.0], [6.0, 0.0]])
    y, z = (np.arange(300) < 150).astype(int), (np.arange(300) < 210).astype(int)
    source, target = (centres[found] + rng.normal(size=(300, 2)) for found in (y, z))
    base = KNeighborsClassifier()
    assert base.fit(source, y).score(target, z) > 0.98
    assert 0.7 < OTAdaptationClassifier(base).fit(source, y, X_target=target).score(target, z) < 0.95


@pytest.mark.parametrize("unknown", [-1, np.nan])
def test_labels_of_target_rows_are_not_read(unknown):
    every, domain = np.vstack([X, T]), np.r_[np.ones(200), -np.ones(200)]
    labels = np.r_[Y.astype(float), np.full(200, unknown)]
    model = OTAdaptationClassifier().fit(every, labels, sample_domain=domain)
    assert list(model.classes_) == [0, 1]
    assert np.array_equal(model.predict(T), OTAdaptationClassifier().fit(X, Y, X_target=T).predict(T))
    frame = pd.DataFrame(every, columns=["a", "b"])
    of_frame = OTAdaptationClassifier().fit(frame, pd.Series(labels), sample_domain=domain)
    assert np.array_equal(of_frame.predict(frame[200:]), model.predict(T))


def test_what_the_base_has_the_model_has():
    words = OTAdaptationClassifier(KNeighborsClassifier()).fit(X, np.array(["no", "yes"])[Y], X_target=T)
    assert set(words.predict(T)) == {"no", "yes"}
    assert words.predict_proba(T).shape == (200, 2)
    assert not hasattr(OTAdaptationClassifier(LinearSVC()), "predict_proba")
    assert OTAdaptationClassifier(LinearSVC()).fit(X, Y, X_target=T).score(T, LABELS) > 0.7


def test_parts_are_cloned_and_tuned():
    base, transport = LogisticRegression(), SinkhornTransport(0.1)
    model = OTAdaptationClassifier(base, transport).fit(X, Y, X_target=T)
    assert not hasattr(base, "coef_")
    assert not hasattr(transport, "reg_")
    assert model.transport_.reg == 0.1
    search = GridSearchCV(OTAdaptationClassifier(KNeighborsClassifier()), {"estimator__n_neighbors": [3, 5]}, cv=3)
    assert np.isfinite(search.fit(X, Y).best_score_)


def test_sparse_rows():
    source, target = (sp.csr_array(np.abs(table)) for table in (X, T))
    model = OTAdaptationClassifier().fit(source, Y, X_target=target)
    dense = OTAdaptationClassifier().fit(source.toarray(), Y, X_target=target.toarray())
    assert np.mean(model.predict(target) == dense.predict(target.toarray())) > 0.98


def test_refusals():
    with pytest.raises(ValueError, match="X_target: X has 1 features"):
        OTAdaptationClassifier().fit(X, Y, X_target=T[:, :1])
    with pytest.raises(ValueError, match="sample_domain"):
        OTAdaptationClassifier().fit(X, Y, sample_domain=np.ones(200))
    with pytest.raises(ValueError, match="Unknown label type"):
        OTAdaptationClassifier().fit(X, X[:, 0], X_target=T)
    with pytest.raises(ValueError, match="NaN"):
        OTAdaptationRegressor().fit(X, np.full(200, np.nan), X_target=T)


def test_frames_as_output_of_transformers_change_nothing():
    X = pd.DataFrame(np.random.default_rng(0).normal(size=(60, 2)), columns=["a", "b"])
    y = (X["a"] > 0).astype(int)
    expected = OTAdaptationClassifier().fit(X, y, X_target=X + 1).decision_function(X + 1)
    with config_context(transform_output="pandas"), warnings.catch_warnings():
        warnings.simplefilter("error")
        model = OTAdaptationClassifier().fit(X, y, X_target=X + 1)
        assert np.array_equal(model.decision_function(X + 1), expected)


def test_area_under_the_curve_of_a_base_without_probabilities():
    X = np.random.default_rng(0).normal(size=(90, 2))
    assert cross_val_score(OTAdaptationClassifier(LinearSVC()), X, X[:, 0] > 0, cv=3, scoring="roc_auc").min() > 0.9
