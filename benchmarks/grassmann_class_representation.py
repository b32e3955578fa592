"""Classes as subspaces of unit features: `GrassmannClassifier`.

Accuracies are those on test rows, means over seeds of the split and of the training. CLAFIC takes the leading right
singular vectors of the unit rows of each class for its subspace, which is where the training begins. No parameter is
tuned; k is the dimension of the subspaces. Seconds are those of the processor, of one fit.
"""

import os
import time

import numpy as np
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.harness import quietly

TITLE = "Grassmann class representation"
TABLES = {"breast cancer": load_breast_cancer, "wine": load_wine, "iris": load_iris}


def unit(Z):
    return Z / np.linalg.norm(Z, axis=1, keepdims=True)


class Clafic:
    """The untrained peer."""

    def __init__(self, k):
        self.k = k

    def fit(self, X, y):
        self.classes = np.unique(y)
        self.V = [np.linalg.svd(unit(X[y == c]), full_matrices=False)[2][: self.k] for c in self.classes]
        return self

    def score(self, X, y):
        lengths = [np.linalg.norm(unit(X) @ V.T, axis=1) for V in self.V]
        return np.mean(self.classes[np.argmax(lengths, axis=0)] == y)


def method(name, *args, seed=0, **settings):
    """Ours, or a peer by its name."""
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.svm import SVC

    device = os.environ["SKLOWRANK_BENCH_DEVICE"]
    if name == "ours":
        from sklowrank.neural import GrassmannClassifier

        return GrassmannClassifier(*args, device=device, random_state=seed, **settings)
    if name == "network":
        from sklowrank.neural import NetworkClassifier

        return NetworkClassifier(*args, device=device, random_state=seed, **settings)
    peers = {"logistic": (LogisticRegression, {"max_iter": 2000}), "LDA": (LinearDiscriminantAnalysis, {})}
    peers |= {"1-NN": (KNeighborsClassifier, {"n_neighbors": 1}), "SVC": (SVC, {}), "CLAFIC": (Clafic, {})}
    kind, fixed = peers[name]
    return kind(*args, **fixed, **settings)


def over_splits(splits, name, args, settings, standardize):
    """Accuracies of a method on several splits, and the seconds of a fit."""
    right, times = [], []
    for seed, (A, B, a, b) in enumerate(splits):
        model = method(name, *args, **({"seed": seed} if name in ("ours", "network") else {}), **settings)
        model = make_pipeline(StandardScaler(), model) if standardize else model
        start = time.process_time()
        quietly(model.fit, A, a)
        times.append(time.process_time() - start)
        right.append(model.score(B, b))
    remark = f"accuracy {np.mean(right):.3f} ({min(right):.3f} to {max(right):.3f})"
    found = {"error": 1 - np.mean(right), "accuracy": np.mean(right), "right": right}
    return {**found, "seconds": float(np.median(times)), "remark": remark}


def on_digits(name, args=(), settings={}, standardize=False, n_train=0.5, n_seeds=3):  # noqa: B006  (never written)
    X, y = load_digits(return_X_y=True)
    split = {"train_size": n_train, "stratify": y}
    splits = [train_test_split(X / 16, y, random_state=seed, **split) for seed in range(n_seeds)]
    return over_splits(splits, name, args, settings, standardize)


def digits(bench):
    """digits: images of 8 by 8 pixels, half of them for the training, three splits, 40 epochs.

    Untrained subspaces of 8 dimensions and the nearest neighbour are as accurate as trained ones.
    """
    peers = {name: bench.measure(name, on_digits, name) for name in ("logistic", "LDA", "1-NN", "SVC")}
    bench.measure("NetworkClassifier, 64 units", on_digits, "network", ((64,),))
    ours = {k: bench.measure(f"GrassmannClassifier, k={k}", on_digits, "ours", (k,)) for k in (1, 2, 4, 8)}
    plain = {k: bench.measure(f"CLAFIC, k={k}", on_digits, "CLAFIC", (k,)) for k in (1, 2, 4, 8)}
    random, qr = (
        bench.measure(f"GrassmannClassifier, k=8, {value}", on_digits, "ours", (8,), {name: value})
        for name, value in (("init", "random"), ("retraction", "qr"))
    )
    deep = bench.measure("GrassmannClassifier, k=2, 64 units", on_digits, "ours", (2, (64,)))
    bench.claim("accuracy, k=8", ours[8].accuracy, at_least=0.980)
    worst = min(np.subtract(ours[8].right, peers["logistic"].right)) if ours[8] and peers["logistic"] else np.nan
    bench.claim("k=8 above logistic regression, worst split", worst, at_least=0.013)
    bench.claim("k=8 above LDA", ours[8].accuracy - peers["LDA"].accuracy, at_least=0.02)
    bench.claim("k=4 above k=1", ours[4].accuracy - ours[1].accuracy, at_least=0.01)
    for k, gain in ((1, 0.03), (2, 0.02)):
        bench.claim(f"training adds at k={k}", ours[k].accuracy - plain[k].accuracy, at_least=gain)
    bench.claim("training costs at k=8, at most", plain[8].accuracy - ours[8].accuracy, at_most=0.005)
    bench.claim("random start against class_svd", abs(random.accuracy - ours[8].accuracy), at_most=0.01)
    bench.claim("retraction='qr' against 'geodesic'", abs(qr.accuracy - ours[8].accuracy), at_most=0.01)
    bench.claim("64 units, k=2", deep.accuracy, at_least=0.955)
    bench.claim("seconds of a fit, k=8", ours[8].seconds, at_most=5)
    bench.note("1-NN less ours, k=8", f"{peers['1-NN'].accuracy - ours[8].accuracy:+.4f}")
    bench.note("CLAFIC less ours, k=8", f"{plain[8].accuracy - ours[8].accuracy:+.4f}")


def few_rows(bench):
    """few rows: digits, 100 and 200 images for the training, five splits."""
    for n in (100, 200):
        settings = {"n_train": n, "n_seeds": 5}
        named = {}
        for name, args in (
            ("ours", (2,)),
            ("ours", (4,)),
            ("CLAFIC", (2,)),
            ("CLAFIC", (4,)),
            ("1-NN", ()),
            ("logistic", ()),
        ):
            label = f"{'GrassmannClassifier' if name == 'ours' else name}{f', k={args[0]}' if args else ''}, {n} images"
            named[name, *args] = bench.measure(label, on_digits, name, args, {}, False, *settings.values())
        gain = named["ours", 2].accuracy - named["logistic",].accuracy
        bench.claim(f"k=2 above logistic regression, {n} images", gain, at_least=0.01)
        best = max(named["CLAFIC", 2].accuracy, named["CLAFIC", 4].accuracy, named["1-NN",].accuracy)
        bench.note(f"the better of CLAFIC and 1-NN less k=2, {n} images", f"{best - named['ours', 2].accuracy:+.4f}")


def standardised(bench):
    """standardised images: digits with standardised columns, k=8 and k=2. What that costs."""
    for k in (2, 8):
        plain = bench.measure(f"k={k}, pixels", on_digits, "ours", (k,))
        scaled = bench.measure(f"k={k}, standardised", on_digits, "ours", (k,), {}, True)
        bench.claim(f"pixels above standardised columns, k={k}", plain.accuracy - scaled.accuracy, at_least=0.0)


def on_a_table(table, name, args=(), settings={}):  # noqa: B006
    X, y = TABLES[table](return_X_y=True)
    splits = [train_test_split(X, y, test_size=0.4, stratify=y, random_state=seed) for seed in range(5)]
    return over_splits(splits, name, args, settings, True)


def tables(bench):
    """signed tables: standardised columns, 60 % of the rows for the training, five splits, k=1.

    The hidden layer has 64 units, and k=2.
    """
    for table in TABLES:
        logistic = bench.measure(f"logistic, {table}", on_a_table, table, "logistic")
        bench.measure(f"LDA, {table}", on_a_table, table, "LDA")
        bench.measure(f"SVC, {table}", on_a_table, table, "SVC")
        ours = bench.measure(f"GrassmannClassifier, {table}", on_a_table, table, "ours", (1,))
        bare = bench.measure(f"without the constant, {table}", on_a_table, table, "ours", (1,), {"add_bias": False})
        deep = bench.measure(f"with a hidden layer, {table}", on_a_table, table, "ours", (2, (64,)))
        bench.claim(f"below logistic regression, {table}", logistic.accuracy - ours.accuracy, at_most=0.012)
        bench.claim(f"the constant coordinate adds, {table}", ours.accuracy - bare.accuracy, at_least=0.08)
        bench.claim(f"hidden layer below logistic, {table}", logistic.accuracy - deep.accuracy, at_most=0.03)


def on_subspaces(name, args=(), settings={}, noise=0.25, n_train=400):  # noqa: B006
    """Four classes, each a subspace of 3 of 30 dimensions, with coordinates of random signs."""
    splits = []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        bases = np.linalg.qr(rng.normal(size=(4, 30, 3)))[0]
        y = np.arange(n_train + 1000) % 4
        X = np.einsum("ndk,nk->nd", bases[y], rng.normal(size=(len(y), 3))) + noise * rng.normal(size=(len(y), 30))
        splits.append((X[:n_train], X[n_train:], y[:n_train], y[n_train:]))
    return over_splits(splits, name, args, settings, False)


def on_waves(name, args=(), settings={}, noise=0.7, n_train=400):  # noqa: B006
    """Four classes of waves, each of one frequency and of any phase, at 64 times."""
    splits = []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        y = np.arange(n_train + 1000) % 4
        phases = np.linspace(0, 1, 64) + rng.random((len(y), 1))
        X = np.sin(2 * np.pi * np.array([3, 5, 8, 9])[y][:, None] * phases) + noise * rng.normal(size=(len(y), 64))
        splits.append((X[:n_train], X[n_train:], y[:n_train], y[n_train:]))
    return over_splits(splits, name, args, settings, False)


def subspaces(bench):
    """classes that are subspaces: 4 classes of 3 of 30 dimensions, signs at random, noise of 0.25 a coordinate.

    Three draws of 400 training and 1,000 test rows. No mean separates such classes, and the constant coordinate takes a
    dimension and does harm: with add_bias="auto" there is none where untrained subspaces are better without it.
    """
    ours = bench.measure("GrassmannClassifier, k=3", on_subspaces, "ours", (3,))
    constant = bench.measure("GrassmannClassifier, k=3, add_bias=True", on_subspaces, "ours", (3,), {"add_bias": True})
    waves = {
        value: bench.measure(f"waves: GrassmannClassifier, k=2, add_bias={value}", on_waves, "ours", (2,), settings)
        for value, settings in (("auto", {}), ("True", {"add_bias": True}))
    }
    peers = {name: bench.measure(name, on_subspaces, name) for name in ("logistic", "1-NN", "SVC")}
    plain = bench.measure("CLAFIC, k=3", on_subspaces, "CLAFIC", (3,))
    bench.measure("NetworkClassifier", on_subspaces, "network")
    bench.claim("above logistic regression", ours.accuracy - peers["logistic"].accuracy, at_least=0.4)
    bench.claim("above 1-NN", ours.accuracy - peers["1-NN"].accuracy, at_least=0.02)
    bench.claim("above a support vector machine", ours.accuracy - peers["SVC"].accuracy, at_least=0.0)
    bench.note("CLAFIC less ours", f"{plain.accuracy - ours.accuracy:+.4f}")
    bench.note("the constant coordinate adds", f"{constant.accuracy - ours.accuracy:+.4f}")
    bench.claim("add_bias='auto' above True", ours.accuracy - constant.accuracy, at_least=0.1)
    bench.claim("waves: add_bias='auto' above True", waves["auto"].accuracy - waves["True"].accuracy, at_least=0.1)


def in_a_stream(learning_rate, k=4, n_passes=15, size=300):
    """Accuracies after passes of `partial_fit` over half of digits, in batches; means of the last five passes."""
    X, y = load_digits(return_X_y=True)
    right = []
    for seed in range(3):
        A, B, a, b = train_test_split(X / 16, y, train_size=0.5, stratify=y, random_state=seed)
        model, scores = method("ours", k, seed=seed, learning_rate=learning_rate), []
        for _ in range(n_passes):
            for start in range(0, len(A), size):
                part = slice(start, start + size)
                model.partial_fit(A[part], a[part], classes=np.arange(10))
            scores.append(model.score(B, b))
        right += scores[-5:]
    remark = f"accuracy {np.mean(right):.3f} ({min(right):.3f} to {max(right):.3f})"
    return {"error": 1 - np.mean(right), "accuracy": np.mean(right), "remark": remark}


def streams(bench):
    """streams: digits by partial_fit, half of the images in batches of 300, k=4, three splits.

    Accuracies are those after the last five of 15 passes. The learning rate does not fall there.
    """
    found = {rate: bench.measure(f"learning_rate={rate}", in_a_stream, rate) for rate in (0.1, 0.02)}
    bench.claim("learning_rate=0.02 above 0.1", found[0.02].accuracy - found[0.1].accuracy, at_least=0.01)


def agreement(add_bias):
    """Scores against their formula, other bases of the same subspaces, and predictions at other scales."""
    X, y = load_digits(return_X_y=True)
    X = X / 16 - 0.3 * add_bias
    model = method("ours", 3, max_iter=8).fit(X, y)
    scores, U = model.decision_function(X), model.transform(X)
    formula = 25 * np.linalg.norm(np.einsum("nd,cdk->nck", U, model.subspaces_), axis=2)
    R = np.linalg.qr(np.random.default_rng(0).normal(size=(10, 3, 3)))[0]
    S = model.subspaces_
    model.subspaces_ = S @ R
    turned = np.abs(model.decision_function(X) - scores).max()
    scales = (1e-25, 1e25)
    other = [np.mean(method("ours", 3, max_iter=8).fit(X * s, y).predict(X * s) != scores.argmax(1)) for s in scales]
    gram = np.abs(np.swapaxes(S, 1, 2) @ S - np.eye(3)).max()
    return {"error": np.abs(scores - formula).max(), "turned": turned, "other": max(other), "gram": gram}


def invariances(bench):
    """invariances: digits, k=3, 8 epochs, with and without the constant coordinate."""
    for add_bias in (False, True):
        found = bench.measure(f"constant coordinate: {add_bias}", agreement, add_bias)
        bench.claim("scores against the formula", found.error, at_most=1e-4)
        bench.claim("scores with other bases", found.turned, at_most=1e-4)
        bench.claim("predictions that differ at scales of 1e25 and 1e-25", found.other, at_most=0.001)
        bench.claim("bases off orthonormal", found.gram, at_most=1e-4)


def step_seconds(how, n_classes, d=512, k=8):
    """Seconds of a step of the subspaces alone: ours, or the thin decomposition of each tangent vector."""
    import torch

    from sklowrank.neural import _grassmannian as grassmannian

    device = os.environ["SKLOWRANK_BENCH_DEVICE"]
    S = grassmannian.orthonormal(torch.randn(n_classes, d, k, generator=torch.Generator().manual_seed(0))).to(device)
    gradient = grassmannian.project_out(S, torch.randn(S.shape, generator=torch.Generator().manual_seed(1)).to(device))

    def by_decomposition():
        U, s, Vh = torch.linalg.svd(gradient, full_matrices=False)
        return (S @ Vh.mT * (0.1 * s).cos()[:, None] - U * (0.1 * s).sin()[:, None]) @ Vh

    steps = {"svd": by_decomposition, "qr": lambda: grassmannian.orthonormal(S - 0.1 * gradient)}
    step = steps.get(how, lambda: grassmannian.geodesic_step(S, gradient, 0.1))
    off = float((step() - by_decomposition()).abs().max())
    times = []
    for _ in range(10):
        start = time.process_time()
        step()
        times.append(time.process_time() - start)
    return {"seconds": float(np.median(times)), "off": off, "remark": f"{off:.1e} off the decomposition"}


def fit_seconds(name, n, d, n_classes):
    """Seconds of a fit to rows about as many directions as there are classes, and the accuracy on other rows."""
    rng = np.random.default_rng(0)
    centres, y = np.abs(rng.normal(size=(n_classes, d))), np.arange(n + 1000) % n_classes
    X = np.abs(centres[y] + rng.normal(size=(len(y), d))).astype(np.float32)
    model = method(name, *(() if name == "logistic" else (4,)))
    start = time.process_time()
    quietly(model.fit, X[:n], y[:n])
    seconds = time.process_time() - start
    right = model.score(X[n:], y[n:])
    return {"seconds": seconds, "error": 1 - right, "remark": f"accuracy {right:.3f}"}


def speed(bench):
    """speed: a step of subspaces of 8 of 512 dimensions, and fits with k=4, in float32."""
    for n_classes in (10, 1000):
        found = {
            how: bench.measure(f"{how}, {n_classes} classes", step_seconds, how, n_classes)
            for how in ("geodesic", "qr", "svd")
        }
        bench.claim(
            f"geodesic against the decomposition, {n_classes} classes",
            found["geodesic"].seconds,
            found["svd"].seconds,
            at_least=1,
        )
        bench.claim(f"geodesic off the decomposition, {n_classes} classes", found["geodesic"].off, at_most=1e-5)
    ours = [bench.measure(f"fit, {n} rows, 100 columns", fit_seconds, "ours", n, 100, 10) for n in (2_000, 20_000)]
    bench.measure("logistic, 20000 rows, 100 columns", fit_seconds, "logistic", 20_000, 100, 10)
    bench.measure("fit, 10000 rows, 256 columns, 200 classes", fit_seconds, "ours", 10_000, 256, 200)
    bench.claim("time for ten times the rows", ours[1].seconds / ours[0].seconds, at_most=15)


CASES = [digits, few_rows, standardised, tables, subspaces, streams, invariances, speed]
