"""Prefixes of orthogonal projections under fitted predictors, and narrower keys and values of attention."""

import os
import time

import numpy as np

from .low_rank import digits, mlp, raw, relative_error

WIDTHS = (4, 8, 12, 16, 24)
SCHEDULE = list(range(4, 65, 4))
SEEDS = 2
NUISANCE = 0.3  # of the twelve strong directions that say nothing


def projection(**params):
    """A projection on the device of the run."""
    from sklowrank.decomposition import MatryoshkaProjection

    return MatryoshkaProjection(device=os.environ["SKLOWRANK_BENCH_DEVICE"], **params)


def caches(net, **params):
    """A compressor of the caches of a fitted network's module."""
    from sklowrank.compress import KVCacheCompressor

    return KVCacheCompressor(net.module_, device=os.environ["SKLOWRANK_BENCH_DEVICE"], **params)


def classifier(build, X, y, seed, **params):
    """A skorch net after some epochs of AdamW, batches of 64."""
    import torch
    from skorch import NeuralNetClassifier
    from torch import nn

    torch.manual_seed(seed)
    how = {"optimizer": torch.optim.AdamW, "lr": 2e-3, "max_epochs": 30, "batch_size": 64, **params}
    net = NeuralNetClassifier(
        build, criterion=nn.CrossEntropyLoss, iterator_train__shuffle=True, train_split=None, verbose=0, **how
    )
    return net.fit(X, y)


# Prefixes


def predictors(nuisance):
    """Fitted networks 64-128-128-10 with their rows."""
    for seed in range(SEEDS):
        X, X_test, y, y_test = digits(seed)
        rng = np.random.default_rng(seed)
        mix = rng.normal(size=(12, 64))
        X, X_test = ((Z + nuisance * rng.normal(size=(len(Z), 12)) @ mix).astype(np.float32) for Z in (X, X_test))
        yield (
            seed,
            classifier(lambda: mlp(64, 128, 128, 10), X, y, seed, optimizer__weight_decay=0.01),
            X,
            X_test,
            y,
            y_test,
        )


def directions(how, seed, net, X, y):
    """Rows of directions of one way, and the mean that is subtracted."""
    from sklearn.cross_decomposition import PLSRegression
    from sklearn.decomposition import PCA
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    from sklearn.frozen import FrozenEstimator

    if how == "PCA":
        return PCA().fit(X).components_, X.mean(0)
    if how == "PLSRegression":
        return PLSRegression(24).fit(X, np.eye(10)[y]).x_rotations_.T, X.mean(0)
    if how == "LinearDiscriminantAnalysis":
        return LinearDiscriminantAnalysis(solver="eigen", shrinkage=1e-3).fit(X, y).scalings_[:, :9].T, X.mean(0)
    params = {"PCA start": {"init": "pca"}, "gradient start, untrained": {"init": "gradient", "max_iter": 0}}
    model = projection(
        estimator=FrozenEstimator(net), rank_schedule=SCHEDULE, random_state=seed, **params.get(how, {})
    ).fit(X)
    return model.components_, model.mean_


def prefixes(how, nuisance):
    """Accuracies of the network on test rows that are rebuilt from a prefix of some directions."""
    import warnings

    right, times = np.zeros((SEEDS, len(WIDTHS))), []
    for seed, net, X, X_test, y, y_test in predictors(nuisance):
        start = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # training may end at max_iter
            components, mean = (net, None) if how == "the network" else directions(how, seed, net, X, y)
        times.append(time.perf_counter() - start)
        for i, width in enumerate(WIDTHS):
            rows = X_test
            if mean is not None:
                Q = np.linalg.qr(components[:width].T)[0]
                rows = ((X_test - mean) @ Q @ Q.T + mean).astype(np.float32)
            right[seed, i] = np.mean(raw(net, rows).argmax(1) == y_test)
    found = {f"at {width}": value for width, value in zip(WIDTHS, right.mean(0))}
    remark = ", ".join(f"{width}: {value:.3f}" for width, value in zip(WIDTHS, right.mean(0)))
    return {**found, "seconds": float(np.median(times)), "remark": remark}


WAYS = (
    "the network",
    "PCA",
    "PLSRegression",
    "LinearDiscriminantAnalysis",
    "PCA start",
    "gradient start, untrained",
    "default",
)


def of_networks(bench):
    """projection, prefixes: digits, networks 64-128-128-10; accuracy on test rows rebuilt from 4 to 24 of 64 numbers.

    The means of two splits. Rows are projected on the first directions of each way; linear discriminant analysis has
    nine. With the nuisance twelve strong directions of noise are added to all rows before the network is trained.
    """
    for name, nuisance, needs in (("plain", 0.0, (0.87, 0.945)), ("nuisance", NUISANCE, (0.75, 0.90))):
        found = {how: bench.measure(f"{name}, {how}", prefixes, how, nuisance) for how in WAYS}
        ours, start = found["default"], found["gradient start, untrained"]
        for width, need in zip(WIDTHS, needs):
            bench.claim(f"{name}: accuracy at width {width}", ours[f"at {width}"], at_least=need)
            for peer in WAYS[1:4]:
                gain = ours[f"at {width}"] - found[peer][f"at {width}"]
                bench.claim(f"{name}: above {peer} at width {width}", gain, at_least=0.02)
        worst = max(start[f"at {width}"] - ours[f"at {width}"] for width in WIDTHS)
        bench.claim(f"{name}: below the untrained start at any width by", worst, at_most=0.02)
        if not nuisance:
            bench.claim("plain: gain of the training at width 4", ours["at 4"] - start["at 4"], at_least=0.08)
            bench.claim("plain: PCA start, trained, at width 8", found["PCA start"]["at 8"], at_least=0.94)


def of_a_line(how):
    """Divergences of a logistic model's classes on test rows from prefixes of 8, 9 and 12 numbers."""
    from scipy.special import log_softmax
    from sklearn.decomposition import PCA
    from sklearn.frozen import FrozenEstimator
    from sklearn.linear_model import LogisticRegression

    found = np.zeros((SEEDS, 3))
    for seed in range(SEEDS):
        X, X_test, y, _ = (part.astype(float) if part.ndim == 2 else part for part in digits(seed))
        model = LogisticRegression(C=0.1, max_iter=2000).fit(X, y)
        if how == "PCA":
            components, mean = PCA().fit(X).components_, X.mean(0)
        else:
            params = {"init": "pca"} if how == "PCA start" else {"init": "gradient", "max_iter": 0}
            ours = projection(estimator=FrozenEstimator(model), rank_schedule=SCHEDULE, random_state=seed, **params)
            components, mean = ours.fit(X).components_, ours.mean_
        truth = log_softmax(model.decision_function(X_test), 1)
        for i, width in enumerate((8, 9, 12)):
            rows = (X_test - mean) @ components[:width].T @ components[:width] + mean
            gap = truth - log_softmax(model.decision_function(rows), 1)
            found[seed, i] = (np.exp(truth) * gap).sum(1).mean()
    values = dict(zip(("at 8", "at 9", "at 12"), found.mean(0)))
    return {**values, "remark": ", ".join(f"{name[3:]}: {value:.2e}" for name, value in values.items())}


def of_lines(bench):
    """projection, logistic model: digits; the Kullback-Leibler divergence of its classes at widths 8, 9 and 12."""
    found = {how: bench.measure(how, of_a_line, how) for how in ("PCA", "PCA start", "gradient start, untrained")}
    bench.claim("PCA start, trained, at 8", found["PCA start"]["at 8"], at_most=0.015)
    bench.claim("PCA start, trained, at 12", found["PCA start"]["at 12"], at_most=0.004)
    bench.claim("gradient start at 9, ten classes", found["gradient start, untrained"]["at 9"], at_most=1e-8)


def timed(n_rows, n_features, how):
    """Seconds of a fit to rows of a plane with noise, whose network has ten outputs."""
    import torch
    from sklearn.cross_decomposition import PLSRegression
    from sklearn.decomposition import PCA
    from torch import nn

    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n_rows, 20)) @ rng.normal(size=(20, n_features)) + rng.normal(size=(n_rows, n_features))
    X, net = X.astype(np.float32), nn.Sequential(nn.Linear(n_features, 128), nn.ReLU(), nn.Linear(128, 10))
    with torch.inference_mode():
        y = net(torch.from_numpy(X)).numpy()
    start = time.perf_counter()
    if how == "PCA":
        PCA().fit(X)
    elif how == "PLSRegression":
        PLSRegression(10).fit(X, y)
    else:
        projection(estimator=net, tol=0.01, random_state=0, **({"max_iter": 0} if how == "untrained" else {})).fit(X)
    return {"seconds": time.perf_counter() - start}


def times(bench):
    """projection, time: seconds of a fit to 2,000 and 200,000 rows of 64 columns, and to 2,000 of 512."""
    for n_rows, n_features in ((2000, 64), (200_000, 64), (2000, 512)):
        found = {
            how: bench.measure(f"{n_rows:,} x {n_features}, {how}", timed, n_rows, n_features, how)
            for how in ("PCA", "PLSRegression", "untrained", "default")
        }
        if n_rows > 2000:
            bench.claim("seconds for 200,000 rows, default", found["default"].seconds, at_most=30)


# Keys and values


def reader(width=48, heads=4):
    """A transformer with two blocks that reads an image row by row."""
    import torch
    from torch import nn

    class Reader(nn.Module):
        def __init__(self):
            super().__init__()
            self.read, self.place = nn.Linear(8, width), nn.Parameter(torch.randn(8, width) / 4)
            block = {"dim_feedforward": 96, "dropout": 0.0, "batch_first": True}
            self.blocks = nn.ModuleList([nn.TransformerEncoderLayer(width, heads, **block) for _ in range(2)])
            self.output = nn.Linear(width, 10)

        def forward(self, x):
            x = self.read(x) + self.place
            for block in self.blocks:
                x = block(x)
            return self.output(x.mean(1))

    return Reader()


CACHES = {
    "default": {},
    "uniform ranks": {"group_ranks": "uniform"},
    "PCA": {"init": "pca"},
    "PCA, uniform ranks": {"init": "pca", "group_ranks": "uniform"},
}
SHARES = {"a half": 1 / 2, "a quarter": 1 / 4, "a sixth": 1 / 6}  # whole numbers per head


def readers():
    """Fitted transformers, their rows, and the outputs and the accuracy on those of the test."""
    for seed in range(3):
        X, X_test, y, y_test = digits(seed)
        X, X_test = X.reshape(-1, 8, 8), X_test.reshape(-1, 8, 8)
        net = classifier(reader, X, y, seed, max_epochs=20, optimizer__weight_decay=0.0)
        yield seed, net, X, X_test, raw(net, X_test), y_test


def shares_of(params):
    """Accuracy lost and relative error of the outputs on test rows at some shares of the numbers, and the shares."""
    lost, errors, kept, times = (np.zeros((3, len(SHARES))) for _ in range(4))
    for seed, net, X, X_test, truth, y_test in readers():
        for i, share in enumerate(SHARES.values()):
            start = time.perf_counter()
            model = caches(net, n_components=share, **params).fit(X)
            times[seed, i], kept[seed, i] = time.perf_counter() - start, model.cache_ratio_
            outputs = model.predict_raw(X_test)
            lost[seed, i] = np.mean(truth.argmax(1) == y_test) - np.mean(outputs.argmax(1) == y_test)
            errors[seed, i] = relative_error(outputs, truth)
    found = {f"lost at {name}": value for name, value in zip(SHARES, lost.mean(0))}
    found |= {f"error at {name}": value for name, value in zip(SHARES, errors.mean(0))}
    parts = zip(SHARES.values(), kept.mean(0), lost.mean(0), errors.mean(0))
    remark = "; ".join(f"{s:.1%} (kept {k:.1%}): accuracy -{a:.3f}, error {e:.4f}" for s, k, a, e in parts)
    return {
        **found,
        "kept": float((kept.mean(0) / list(SHARES.values())).max()),
        "seconds": float(np.median(times)),
        "remark": remark,
    }


def of_caches(bench):
    """caches: transformers with two blocks, width 48, four heads, that read digits row by row; means of three splits.

    "PCA" are the principal components of the keys and of the values of each head. Errors of outputs are relative to
    their variance, on test rows.
    """
    found = {name: bench.measure(name, shares_of, params) for name, params in CACHES.items()}
    ours, plain = found["default"], found["PCA, uniform ranks"]
    bench.claim("accuracy lost at a quarter of the numbers", ours["lost at a quarter"], at_most=0.015)
    bench.claim("relative error at a quarter", ours["error at a quarter"], at_most=0.025)
    bench.claim("numbers kept over those asked for", ours["kept"], at_most=1.0)
    for share in SHARES:
        theirs = plain[f"error at {share}"]
        bench.claim(f"error against PCA with uniform ranks, {share}", ours[f"error at {share}"], theirs, at_most=0.5)
    theirs = found["PCA"]["error at a quarter"]
    bench.claim("error against PCA with our ranks, a quarter", ours["error at a quarter"], theirs, at_most=1)


CASES = [of_networks, of_lines, times, of_caches]
