"""Few directions that separate classes and rebuild the features: `SupervisedDictionaryLearning`, and its regressor.

The error of a classifier is the share of wrong classes on rows it was not fitted on, that of a regressor one minus R².
For messages it is one minus the F1 score of spam. «Lost» is the share of the squares of the same rows, about the mean
of the fitted ones, that codes by least squares do not rebuild. Figures are means of three splits, 70 % of the rows to
fit. Seconds are those of one fit. Ours runs with its defaults unless settings are named; a logistic regression follows
each reduction. Two classes are penalised half as much by ours as by `LogisticRegression` at the same C.
"""

import time
import warnings

import numpy as np
import scipy.sparse as sp
from sklearn.decomposition import NMF
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import f1_score, roc_auc_score

from benchmarks.data import SUPERVISED, messages, missing, nuisance, split
from benchmarks.harness import clock
from benchmarks.peers import Reduced, supervised_mf

TITLE = "Supervised dictionary learning"
TWO_SOLVERS = {"tol": 1e-9, "max_iter": 3000}


# Methods


def ours(n_components, **settings):
    from sklowrank.decomposition import SupervisedDictionaryLearning

    return SupervisedDictionaryLearning(n_components, random_state=0, **settings)


def make(name, r, settings):
    """Ours, where the name says so, or a reduction with a linear model behind it."""
    settings = dict(settings or {})
    if name == "ours":
        return ours(r, **settings)
    if name == "ours, numbers":
        from sklowrank.decomposition import SupervisedDictionaryRegressor

        return SupervisedDictionaryRegressor(r, random_state=0, **settings)
    numbers = settings.pop("numbers", False)
    return Reduced(name, r, Ridge() if numbers else LogisticRegression(max_iter=5000, **settings))


def lost(model, X):
    """The share of the squares of rows X, which are centred, that the components do not rebuild."""
    W = getattr(getattr(model, "first", model), "components_", None)
    if W is None or sp.issparse(X):
        return np.nan
    Q = np.linalg.qr(W.T)[0]
    return 1 - ((X @ Q) ** 2).sum() / (X**2).sum()


# Measured functions: each runs in a fresh process


def evaluate(data, name, r, settings=None, covariates=False, splits=3):
    """Errors on new rows, what components lose, and seconds of a fit."""
    rows = []
    for seed in range(splits):
        X, y, z, X_new, y_new, z_new = split(data, seed)
        beside = {"covariates": z} if covariates else {}
        model = make(name, r, settings)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if seed == 0:
                X_few, y_few, z_few = X[:200], y[:200], z[:200]
                make(name, r, settings).fit(X_few, y_few, **({"covariates": z_few} if covariates else {}))  # warm
            start = time.perf_counter()
            model.fit(X, y, **beside)
        seconds = time.perf_counter() - start
        beside = {"covariates": z_new} if covariates else {}
        found = model.predict(X_new, **beside)
        if data == "spam":
            auc = roc_auc_score(y_new, model.decision_function(X_new, **beside))
            rows.append((f1_score(y_new, found, zero_division=0), auc, seconds))
        elif y.dtype.kind == "f":
            rows.append((1 - ((found - y_new) ** 2).mean() / y_new.var(), lost(model, X_new), seconds))
        else:
            rows.append((np.mean(found == y_new), lost(model, X_new), seconds))
    right, second, seconds = np.mean(rows, axis=0)
    label = "AUC" if data == "spam" else "lost"
    remark = "" if np.isnan(second) else f"{label} {second:.3f}"
    return {"error": 1 - right, "right": right, "second": second, "seconds": seconds, "remark": remark}


def optimum(data, r, solver):
    """The objective that a solver reaches, and its accuracy on the same rows."""
    X, y, _ = SUPERVISED[data](0)
    X = X - X.mean(0)
    ours(2, max_iter=3, tol=1).fit(X, y)  # warm
    model, seconds = clock(lambda: ours(r, solver=solver, **TWO_SOLVERS).fit(X, y))
    value = model.loss_curve_[-1]
    return {
        "error": 1 - model.score(X, y),
        "value": value,
        "seconds": seconds,
        "remark": f"objective {value:.7f} after {model.n_iter_} iterations",
    }


def largest_rise(model, data, r):
    """The largest rise of the objective from one cycle of block descent to the next."""
    X, y, _ = SUPERVISED[data](0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        curve = ours(r, model=model, nonnegative=True, max_iter=200).fit(np.abs(X), y).loss_curve_
    rise = max(0.0, float(np.diff(curve).max()))
    return {"rise": rise, "remark": f"largest rise {rise:.1e} in {len(curve)} cycles"}


def objective(X, y, W, A, intercept, xi=0.1, C=1.0):
    """The objective as the documentation has it, for two classes, with the best codes for W (p, r)."""
    Q = np.linalg.qr(W)[0]
    share = 1 - ((X @ Q) ** 2).sum() / (X**2).sum()
    scores = X @ A + intercept
    return (np.logaddexp(0, scores) - y * scores).mean() + xi * share + (A**2).sum() / (4 * C * len(y))


def of_two_classes(which, r=2):
    """Objective and seconds on breast cancer, all rows."""
    X, y, _ = SUPERVISED["breast cancer"](0)
    if which == "ours":
        ours(r).fit(X, y)
        model, seconds = clock(lambda: ours(r).fit(X, y))
        value = objective(X, y, model.components_.T, model.feature_coef_[0], model.intercept_[0])
        return {"error": 1 - model.score(X, y), "value": value, "seconds": seconds, "remark": f"objective {value:.6f}"}
    (W, beta), seconds = clock(lambda: supervised_mf(X, y, r))
    own = objective(X, y, W, W @ beta[1:], beta[0])
    Q = np.linalg.qr(W)[0]
    best = LogisticRegression(C=2, tol=1e-10, max_iter=10_000).fit(X @ Q, y)
    value = objective(X, y, W, Q @ best.coef_[0], best.intercept_[0])
    return {
        "error": np.mean((X @ W @ beta[1:] + beta[0] > 0) != y),
        "value": value,
        "seconds": seconds,
        "remark": f"objective {value:.6f} with the best weights for its dictionary, {own:.6f} with its own",
    }


def peer_with_covariates():
    """SupervisedMF on the first split of the table with covariates."""
    X, y, z, X_new, y_new, z_new = split("nuisance", 0)
    (W, beta), seconds = clock(lambda: supervised_mf(X, y, 3, z))
    scores = beta[0] + X_new @ W @ beta[1:4] + z_new @ beta[4:]
    Q = np.linalg.qr(W)[0]
    share = 1 - ((X_new @ Q) ** 2).sum() / (X_new**2).sum()
    return {"error": np.mean((scores > 0) != y_new), "seconds": seconds, "remark": f"lost {share:.3f}"}


def many_rows(n_samples):
    """Five components of a large table with covariates."""
    X, y, z = nuisance(0, n_samples)
    ours(5).fit(X[:1000], y[:1000], covariates=z[:1000])
    model, seconds = clock(lambda: ours(5).fit(X, y, covariates=z))
    return {"error": 1 - model.score(X, y, covariates=z), "seconds": seconds, "remark": f"{model.n_iter_} iterations"}


def all_words(which, tol=1e-7):
    """Five non-negative topics of all messages, 5000 words."""
    texts, y = messages()
    X = TfidfVectorizer(max_features=5000).fit_transform(texts)
    if which == "NMF":
        model, seconds = clock(lambda: NMF(5, init="nndsvda").fit(X))
        share = model.reconstruction_err_**2 / (X.data**2).sum()
        return {"seconds": seconds, "remark": f"lost {share:.4f} after {model.n_iter_} iterations"}
    ours(5, nonnegative=True, max_iter=10, tol=0.1).fit(X, y)
    model, seconds = clock(lambda: ours(5, nonnegative=True, tol=tol).fit(X, y))
    remark = (
        f"lost {model.reconstruction_error_:.4f}, objective {model.loss_curve_[-1]:.5f} after {model.n_iter_} cycles"
    )
    return {"seconds": seconds, "value": model.loss_curve_[-1], "remark": remark}


# Cases


def hidden(bench):
    """Hidden signal: the class depends on a weak direction under five strong ones, and on two covariates; r = 3"""
    bench.measure("PCA, covariates", evaluate, "nuisance", "PCA", 3, None, True)
    full = bench.measure("all columns, covariates", evaluate, "nuisance", "all columns", 3, None, True)
    found = bench.measure("ours, covariates", evaluate, "nuisance", "ours", 3, {}, True)
    high = bench.measure("ours, covariates, xi=1", evaluate, "nuisance", "ours", 3, {"xi": 1.0}, True)
    bench.measure("ours, without covariates", evaluate, "nuisance", "ours", 3, {})
    feature = {"model": "feature", "C": 0.1}
    bench.measure("ours, feature model, C=0.1, covariates", evaluate, "nuisance", "ours", 3, feature, True)
    bench.claim("accuracy", found.right, at_least=0.795)
    bench.claim("accuracy below logistic regression on all columns", full.right - found.right, at_most=0.012)
    bench.claim("xi=1: accuracy, as with PCA (0.667)", high.right, at_least=0.657, at_most=0.677)
    bench.claim("xi=1: lost (0.460)", high.second, at_least=0.45, at_most=0.47)


def feature_model(bench):
    """Feature model: the hidden signal in 200 columns under eight strong directions, r = 4, with covariates"""
    how = "nuisance of eight", "ours", 4
    bench.measure("PCA", evaluate, "nuisance of eight", "PCA", 4, None, True)
    full = bench.measure("all columns", evaluate, "nuisance of eight", "all columns", 4, None, True)
    plain = bench.measure("ours, filter model, C=0.1", evaluate, *how, {"C": 0.1}, True)
    for xi, C in ((0.1, 1.0), (0.1, 0.1), (0.1, 0.01), (0.01, 0.1), (0.01, 0.01)):
        settings = {"model": "feature", "xi": xi, "C": C}
        found = bench.measure(f"ours, feature model, xi={xi:g}, C={C:g}", evaluate, *how, settings, True)
    below = "accuracy below logistic regression on all columns"
    bench.claim(f"filter model: {below}", full.right - plain.right, at_most=0.012)
    bench.claim(f"feature model, xi=0.01, C=0.01: {below}", full.right - found.right, at_most=0.02)


def classes(bench):
    """Three classes: 2000 rows of 300 columns near ten directions, r = 5, one split"""
    bench.measure("all columns", evaluate, "three classes", "all columns", 5, None, False, 1)
    bench.measure("PCA", evaluate, "three classes", "PCA", 5, None, False, 1)
    name = "MiniBatchDictionaryLearning"
    plain = bench.measure(name, evaluate, "three classes", name, 5, None, False, 1)
    found = bench.measure("ours", evaluate, "three classes", "ours", 5, {}, False, 1)
    early = bench.measure("ours, tol=1e-4", evaluate, "three classes", "ours", 5, {"tol": 1e-4}, False, 1)
    bench.claim("seconds against dictionary learning", found.seconds, plain.seconds, at_most=1)
    bench.claim("tol=1e-4: seconds against the default, tol=1e-7", early.seconds, found.seconds, at_most=1)
    bench.claim("tol=1e-4: accuracy below the default's", found.right - early.right, at_most=0.005)


def mixtures(bench):
    """Mixtures of images: rows are mixtures of four digits, the class depends on four others"""
    full = bench.measure("all columns", evaluate, "pixels", "all columns", 1)
    for r in (1, 2):
        bench.measure(f"PCA({r})", evaluate, "pixels", "PCA", r)
        found = bench.measure(f"ours({r})", evaluate, "pixels", "ours", r, {})
        bench.claim(f"r={r}: accuracy below all columns", full.right - found.right, at_most=0.015)


def digits(bench):
    """Digits: bundled with scikit-learn, divided by 16"""
    bench.measure("all columns", evaluate, "digits", "all columns", 1)
    for r, least in ((4, 0.905), (8, 0.955)):
        bench.measure(f"PCA({r})", evaluate, "digits", "PCA", r)
        bench.measure(f"LDA({r})", evaluate, "digits", "LDA", r)
        plain = bench.measure(f"MiniBatchDictionaryLearning({r})", evaluate, "digits", "MiniBatchDictionaryLearning", r)
        found = bench.measure(f"ours({r})", evaluate, "digits", "ours", r, {})
        bench.claim(f"r={r}: accuracy", found.right, at_least=least)
        bench.claim(f"r={r}: seconds of a fit", found.seconds, at_most=2)
        if r == 4:
            bench.claim("r=4: seconds against dictionary learning", found.seconds, plain.seconds, at_most=1)


def short_messages(bench):
    """Short messages: spam or not, 1000 words, one split"""
    if why := missing("sms_spam"):
        return bench.skip(why)
    peers = {
        "NMF(2)": ("NMF", 2, None, False),
        "NMF(2), covariates": ("NMF", 2, None, True),
        "NMF(5)": ("NMF", 5, None, False),
        "TruncatedSVD(2), covariates": ("TruncatedSVD", 2, None, True),
        "covariates alone": ("covariates alone", 1, None, True),
        "all columns, C=10": ("all columns", 1, {"C": 10.0}, False),
        "all columns, C=10, covariates": ("all columns", 1, {"C": 10.0}, True),
    }
    for label, how in peers.items():
        bench.measure(label, evaluate, "spam", *how, 1)
    both = bench.measure("ours(2), C=10, covariates", evaluate, "spam", "ours", 2, {"C": 10.0}, True, 1)
    alone = bench.measure("ours(2), C=10", evaluate, "spam", "ours", 2, {"C": 10.0}, False, 1)
    topics = bench.measure("ours(5), nonnegative", evaluate, "spam", "ours", 5, {"nonnegative": True}, False, 1)
    bench.claim("F1 of spam with covariates", both.right, at_least=0.93)
    bench.claim("F1 of spam without", alone.right, at_least=0.88)
    bench.claim("F1 of spam, non-negative topics", topics.right, at_least=0.88)


def solvers(bench):
    """Solvers: two solvers reach one optimum, tol=1e-9; block descent never rises"""
    for data, r in (("breast cancer", 2), ("breast cancer", 5), ("digits", 4)):
        found = [bench.measure(f"{data}, r={r}, {s}", optimum, data, r, s) for s in ("lbfgs", "lpgd")]
        gap = abs(found[0].value - found[1].value) / found[0].value
        bench.claim(f"{data}, r={r}: relative gap of the objectives", gap, at_most=1e-3)
        bench.claim(f"{data}, r={r}: gap of the accuracies", abs(found[0].error - found[1].error), at_most=0.006)
    for model in ("filter", "feature"):
        rise = bench.measure(f"digits, non-negative, {model} model", largest_rise, model, "digits", 4).rise
        bench.claim(f"{model} model: largest rise of block descent", rise, at_most=0)


def other_package(bench):
    """SupervisedMF: breast cancer, r = 2, 100 iterations of its block descent; and the hidden signal, one split"""
    theirs = bench.measure("SupervisedMF", of_two_classes, "theirs", package="SupervisedMF")
    found = bench.measure("ours", of_two_classes, "ours")
    bench.claim("seconds", found.seconds, theirs.seconds, at_least=5)
    bench.claim("objective against its own", found.value, theirs.value, at_most=1)
    bench.measure("hidden signal, SupervisedMF", peer_with_covariates, package="SupervisedMF")
    bench.measure("hidden signal, ours", evaluate, "nuisance", "ours", 3, {}, True, 1)


def other_data(bench):
    """Other data: on which nothing was chosen; defaults, and no claim; one split of the faces"""
    names = ["breast cancer", "wine"] + ["faces"] * (not missing("yaleb32"))
    for data in names:
        bench.measure(
            f"{data}, all columns", evaluate, data, "all columns", 1, None, False, 1 if data == "faces" else 3
        )
        for r in (1, 2, 5) if data != "faces" else (5, 20):
            names = ["PCA", "PLS", "LDA", "ours"]
            if data != "faces" and r > (1 if data == "breast cancer" else 2):  # LDA has one less than classes
                names.remove("LDA")
            for name in names:
                settings, splits = {} if name == "ours" else None, 1 if data == "faces" else 3
                bench.measure(f"{data}, {name}({r})", evaluate, data, name, r, settings, False, splits)


def regression(bench):
    """Regression: diabetes, and a number that depends on the hidden signal; the error is one minus R²"""
    for data, beside in (("diabetes", False), ("nuisance, numbers", True)):
        bench.measure(f"{data}, all columns", evaluate, data, "all columns", 1, {"numbers": True}, beside)
        for r in (1, 3):
            for name in ("PCA", "PLS"):
                bench.measure(f"{data}, {name}({r})", evaluate, data, name, r, {"numbers": True}, beside)
            bench.measure(f"{data}, ours({r})", evaluate, data, "ours, numbers", r, {}, beside)


def growth(bench):
    """Growth: the hidden signal in 50 columns with covariates, r = 5"""
    small = bench.measure("30,000 rows", many_rows, 30_000)
    large = bench.measure("300,000 rows", many_rows, 300_000)
    bench.claim("seconds, 300,000 rows against 30,000", large.seconds, small.seconds, at_most=12)
    bench.claim("peak memory of 300,000 rows in MB", large.peak, at_most=2000)


def text(bench):
    """Text: 5574 messages, 5000 words, sparse, five non-negative topics; NMF does not look at the classes"""
    if why := missing("sms_spam"):
        return bench.skip(why)
    plain = bench.measure("NMF, tol=1e-4 (its default)", all_words, "NMF")
    for tol in (1e-4, 1e-5, 1e-7):
        found = bench.measure(f"ours, tol={tol:g}", all_words, "ours", tol)
        about = " (the default)" if tol == 1e-7 else " (NMF's default)" if tol == 1e-4 else ""
        bench.claim(f"seconds at tol={tol:g}{about} against NMF", found.seconds, plain.seconds, at_most=5)


CASES = [
    hidden,
    feature_model,
    classes,
    mixtures,
    digits,
    short_messages,
    solvers,
    other_package,
    other_data,
    regression,
    growth,
    text,
]
