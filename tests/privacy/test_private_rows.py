"""No message shows a private cell or label, and no warning depends on labels where classes are public."""

import traceback
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from scipy.sparse import csc_matrix, csr_matrix

from sklowrank.privacy import PrivacyLeakWarning, PrivateDistanceSum, PrivateKernelDensity, PrivateSimilarityClassifier
from sklowrank.privacy._private_rows import without_cells

SECRET = "7731"
RNG = np.random.default_rng(0)
X, Y = RNG.random((30, 2)), np.arange(30) % 2
MODELS = {
    "density": PrivateKernelDensity(bandwidth=0.5, n_components=8),
    "distances": PrivateDistanceSum(bounds=(0, 1)),
    "classes": PrivateSimilarityClassifier(classes=[0, 1], bandwidth=0.5, n_components=8),
    "linear": PrivateSimilarityClassifier(classes=[0, 1], similarity="linear"),
}


class Stubborn:
    def __float__(self):
        raise ValueError(f"positive-{SECRET}")

    def __repr__(self):
        return SECRET


def with_cell(value):
    table = X.astype(object)
    table[3, 1] = value
    return table


def broken(indices):
    table = csr_matrix(X)
    table.indices = table.indices.copy()
    table.indices[:] = indices
    return table


def frames(values):
    return pd.DataFrame({"a": values, "b": np.arange(len(values))})


TABLES = {
    "text": [["0.1", 1.0], [f"positive-{SECRET}", 2.0]],
    "text among objects": with_cell(f"positive-{SECRET}"),
    "bytes": with_cell(f"positive-{SECRET}".encode()),
    "array of text": np.array([["1", f"x{SECRET}"], ["1", "2"]]),
    "pandas": frames(["0.1", f"positive-{SECRET}"]),
    "category": frames(pd.Categorical([f"x{SECRET}", "y"])),
    "dates": frames(pd.to_datetime(["2031-07-07 17:31:07"] * 2)),
    "missing": frames(pd.array([7731, None], dtype="Int64")),
    "polars": pl.DataFrame({"a": [f"x{SECRET}", "y"], "b": [1, 2]}),
    "an object of one's own": with_cell(Stubborn()),
    "a dict in a cell": with_cell({"a": 7731}),
    "complex": X + 7731j,
    "complex among objects": with_cell(7731 + 1j),
    "complex tensor": torch.full((3, 2), 7731 + 0j),
    "one dimension": np.array([7731.0, 1.0]),
    "a list": [7731.0, 1.0],
    "a series": pd.Series([7731.0, 1.0]),
    "a number": 7731.0,
    "a string": f"x{SECRET}",
    "three dimensions": np.full((2, 2, 2), 7731.0),
    "ragged": [[7731.0], [1.0, 2.0]],
    "a dict": {"a": [7731.0]},
    "too large": [[7731 * 10**400, 1], [1, 2]],
    "NaN": np.array([[7731.0, np.nan], [1, 2]]),
    "inf": np.array([[7731.0, np.inf], [1, 2]]),
    "sparse, beyond the columns": broken(7731),
    "sparse, negative": broken(-7731),
    "no rows": np.zeros((0, 2)),
    "no columns": np.zeros((7731, 0)),
}
LABELS = {
    "text": [f"a{SECRET}"] * 30,
    "numbers": np.full(30, 7731),
    "mixed": [1, f"b{SECRET}"] * 15,
    "bytes": [SECRET.encode()] * 30,
    "continuous": np.linspace(0, 7731.5, 30),
    "NaN": [np.nan] * 30,
    "inf": [np.inf] * 30,
    "complex": np.full(30, 7731j),
    "another length": np.zeros(7731),
    "two columns": np.full((30, 2), 7731),
    "objects": [Stubborn()] * 30,
    "dicts": [{"a": 7731}] * 30,
    "too large": [7731 * 10**30] * 30,
    "category": pd.Series(pd.Categorical([f"x{SECRET}"] * 30)),
    "nothing": None,
}


def refused(call):
    """Return the text of the error of a call, of which nothing shows the secret: no cause, context or warning."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        with pytest.raises((TypeError, ValueError)) as caught:
            call()
    error = caught.value
    assert error.__cause__ is None
    assert error.__context__ is None
    shown = "".join(traceback.format_exception_only(error)) + repr(error) + "".join(str(w.message) for w in seen)
    assert SECRET not in shown
    assert "2031" not in shown
    return str(error)


@pytest.mark.parametrize("kind", TABLES)
@pytest.mark.parametrize("name", ["density", "classes"])
def test_no_cell_is_shown(name, kind):
    table, model = TABLES[kind], MODELS[name]
    n = table.shape[0] if hasattr(table, "toarray") else len(table) if hasattr(table, "__len__") else 1
    labels = [np.zeros(n, int)] if name == "classes" else []
    fresh = type(model)(**model.get_params())
    for call in (fresh.fit, fresh.partial_fit):
        refused(lambda call=call: call(table, *labels))
    fitted = fresh.fit(X, *([Y] if labels else []))
    refused(lambda: (fitted.predict if labels else fitted.kernel_sums)(table))


@pytest.mark.parametrize("name", ["distances", "linear"])
@pytest.mark.parametrize("kind", ["text", "pandas", "complex", "one dimension", "NaN"])
def test_no_cell_is_shown_by_the_others(name, kind):
    table, model = TABLES[kind], MODELS[name]
    refused(lambda: model.fit(table, *([np.zeros(len(table), int)] if name == "linear" else [])))


@pytest.mark.parametrize("kind", LABELS)
@pytest.mark.parametrize("classes", [[0, 1], ["a", "b"]])
def test_no_label_is_shown(kind, classes):
    refused(lambda: PrivateSimilarityClassifier(classes=classes, similarity="linear").fit(X, LABELS[kind]))


@pytest.mark.parametrize("kind", ["bytes", "continuous", "NaN", "complex", "another length", "objects", "dicts"])
def test_no_label_is_shown_where_classes_are_read(kind):
    refused(lambda: PrivateSimilarityClassifier(similarity="linear").fit(X, LABELS[kind]))


def test_no_label_is_shown_by_a_score():
    model = PrivateSimilarityClassifier(classes=[0, 1], bandwidth=0.5, epsilon=1e6).fit(X, Y)
    for kind in LABELS.keys() - {"numbers"}:
        refused(lambda kind=kind: model.score(X, LABELS[kind]))
    assert model.score(X, Y) == np.mean(model.predict(X) == Y)


def test_messages_name_what_is_public():
    density = MODELS["density"]
    text = {"text": "[0]", "text among objects": "[1]", "pandas": "['a']", "polars": "['a']", "category": "['a']"}
    for kind, columns in text.items():
        assert f"Text is in the columns {columns}" in refused(lambda kind=kind: density.fit(TABLES[kind]))
    assert "Input X contains NaN. Fill" in refused(lambda: density.fit(TABLES["NaN"]))
    assert "infinity" in refused(lambda: density.fit(TABLES["inf"]))
    assert "Reshape your data" in refused(lambda: density.fit(TABLES["a list"]))
    assert "OverflowError was raised" in refused(lambda: density.fit(TABLES["too large"]))
    fitted = PrivateKernelDensity(bandwidth=0.5).fit(X)
    assert "X has 3 features, but PrivateKernelDensity is expecting 2" in refused(lambda: fitted.kernel_sums(np.eye(3)))
    named = PrivateKernelDensity(bandwidth=0.5).fit(pd.DataFrame(X, columns=["a", "b"]))
    assert "- c" in refused(lambda: named.kernel_sums(pd.DataFrame(X, columns=["a", "c"])))
    assert "not among classes" in refused(lambda: MODELS["linear"].fit(X, LABELS["text"]))


@pytest.mark.parametrize("similarity", ["linear", "gaussian"])
def test_warnings_do_not_depend_on_labels(similarity):
    """Scikit-learn takes labels of which more than half are distinct for numbers, and warns."""
    texts = []
    for k in (1, 2, 15, 16, 30):
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            PrivateSimilarityClassifier(
                bounds=(0, 1), classes=range(60), similarity=similarity, random_state=0, n_components=8
            ).fit(X, np.arange(30) % k)
        texts.append([str(w.message) for w in seen])
    assert all(found == texts[0] for found in texts)
    assert len(texts[0]) == 1  # of the seed


def test_no_warning_depends_on_cells():
    """Cells that overflow once they are divided by a narrow unit are moved to the limit, silently."""
    rows = np.array([[1e300, -1e300], [1e-300, 0.0]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for table in (rows, csr_matrix(rows), rows.astype(np.longdouble)):
            PrivateSimilarityClassifier(similarity="linear", classes=[0], clip_norm=1e-100).fit(table, [0, 0])
            PrivateSimilarityClassifier(bandwidth=1e-100, classes=[0], n_components=8).fit(table, [0, 0])


@pytest.mark.parametrize("like", [np.int8, np.int64, np.bool_, np.float32, np.float64, object])
def test_labels_of_any_type_find_their_class(like):
    labels = Y.astype(like)
    model = PrivateSimilarityClassifier(similarity="linear", classes=[1, 0], epsilon=1e6).fit(X, labels)
    assert model.classes_.tolist() == [0, 1]
    assert np.allclose(model.class_counts_, 15, atol=0.01)
    names = np.where(Y > 0, "one", "two")
    for given in (names, names.astype(object), pd.Series(names), names.tolist()):
        model = PrivateSimilarityClassifier(similarity="linear", classes=["two", "one"], epsilon=1e6).fit(X, given)
        assert np.allclose(model.class_counts_, 15, atol=0.01)


@pytest.mark.parametrize(
    "params",
    [
        {"classes": []},
        {"classes": [[0, 1]]},
        {"classes": [np.nan, 0, 1]},
        {"classes": [None, 0]},
        {"clip_center": [np.nan, 0.0]},
        {"clip_center": [np.inf, 0.0]},
        {"clip_center": [1e308, 0.0]},
        {"clip_center": [0.0, 0.0, 0.0]},
        {"clip_center": ["a", "b"]},
        {"clip_center": [1j, 0]},
        {"clip_norm": 1e300},
        {"clip_norm": 5e-324},
        {"count_weight": 1e-7},
        {"bounds": (0, np.inf)},
        {"bandwidth": [1.0, np.nan]},
        {"class_weighting": [np.nan, 1.0], "similarity": "gaussian"},
        {"class_weighting": [np.inf, 1.0], "similarity": "gaussian"},
    ],
)
def test_public_parameters_are_finite_and_named(params):
    """NaN in the centre would make whole numbers of which the parity of the number of rows could be read."""
    model = PrivateSimilarityClassifier(**{"similarity": "linear", "classes": [0, 1], **params})
    with pytest.raises(ValueError, match=next(iter(params))):
        model.fit(X, Y)


@pytest.mark.parametrize("form", [csr_matrix, csc_matrix])
def test_a_row_of_repeated_cells_counts_once(form):
    """At fit, partial_fit and in queries: what `toarray` would give."""
    data, rows, columns = np.full(1000, 0.01), np.zeros(1000, int), np.arange(1000) % 2
    many = form((data, (rows, columns)), shape=(1, 2))
    if form is csr_matrix:
        many = csr_matrix((data, columns, [0, 1000]), shape=(1, 2))
    assert many.nnz in (2, 1000)
    params = {"epsilon": 1e9, "classes": [0, 1], "feature_random_state": 0}
    for similarity in ("linear", "gaussian"):
        params |= {"similarity": similarity, "bandwidth": 1.0, "n_components": 8, "clip_norm": 10.0}
        dense = PrivateSimilarityClassifier(**params).fit(many.toarray(), [0])
        sparse = PrivateSimilarityClassifier(**params).fit(many, [0])
        assert np.allclose(dense.sketch_, sparse.sketch_, atol=1e-6)
        assert np.allclose(sparse.partial_fit(many, [0]).sketch_, 2 * dense.sketch_, atol=2e-6)
        assert np.allclose(sparse.predict_proba(many), sparse.predict_proba(many.toarray()))
    density = PrivateKernelDensity(epsilon=1e9, n_components=8, feature_random_state=0)
    near = density.fit(many).kernel_sums(many)
    assert np.allclose(near, density.kernel_sums(many.toarray()))
    assert near == pytest.approx(1.0, abs=1e-3)


def test_a_pure_release_of_a_row_is_within_its_sensitivity():
    row = csr_matrix((np.full(10_000, 10.0), np.zeros(10_000, int), [0, 10_000]), shape=(1, 2))
    model = PrivateSimilarityClassifier(similarity="linear", classes=[0, 1], epsilon=1e9, delta=0.0).fit(row, [0])
    assert np.abs(model.sketch_).sum() <= model.sensitivity_


def test_seeds_are_warned_of():
    for model in MODELS.values():
        seeded = type(model)(**{**model.get_params(), "random_state": 0})
        with pytest.warns(PrivacyLeakWarning, match="finds it by trying all small numbers"):
            seeded.fit(X, Y)
        assert not seeded.noise_secure_


def test_errors_while_rows_are_read_show_nothing():
    """What a cluster or a file raises after the check at the door is replaced, too."""

    def reading(error):
        raise error

    for error, kind in (
        (OSError(f"cannot read cell {SECRET}"), ValueError),
        (TypeError(f"cell {SECRET}"), TypeError),
        (RuntimeError(f"worker lost {SECRET}"), ValueError),
        (MemoryError(f"Unable to allocate an array with shape ({SECRET}, 2)"), MemoryError),
    ):
        with pytest.raises(kind) as caught:
            without_cells(reading, error)
        assert SECRET not in str(caught.value)
        assert caught.value.__context__ is None
    assert without_cells(len, [1, 2]) == 2
    with pytest.raises(KeyboardInterrupt):
        without_cells(reading, KeyboardInterrupt())
