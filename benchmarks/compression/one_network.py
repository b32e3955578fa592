"""One network made small in each of the ways, and adapted to a second site: the table of the guide."""

import os

import numpy as np

from benchmarks.compression.low_rank import digits, milliseconds

SHARE = 0.16
MOVED = 100  # labelled rows of the second site


def frozen(model):
    """A fitted estimator that is taken as it is."""
    from sklearn.frozen import FrozenEstimator

    return FrozenEstimator(model)


def device():
    """Where our methods compute."""
    return {"device": os.environ["SKLOWRANK_BENCH_DEVICE"]}


def fitted(*widths):
    """A network, rows of the training and of the test, and their labels."""
    from sklowrank.neural import NetworkClassifier

    X, X_test, y, y_test = digits(0)
    net = NetworkClassifier(widths, max_iter=60, tol=0, standardize=False, random_state=0, **device()).fit(X, y)
    return net, X, X_test, y, y_test


def narrow_width():
    """The width of three hidden layers with a share `SHARE` of the parameters of three of 256."""
    sizes = {w: 64 * w + 2 * w * w + 10 * w + 3 * w + 10 for w in range(1, 257)}
    return min(sizes, key=lambda w: abs(sizes[w] - SHARE * sizes[256]))


def made_small(way):
    """The fitted model of one way, rows of the test and their labels; numbers and bytes that it stores."""
    from sklowrank.compress import FeatureMimickingCompressor, LowRankCompensator, LowRankCompressor, SecondOrderPruner

    if way == "a narrow network, trained anew":
        model, _, X_test, _, y_test = fitted(*(narrow_width(),) * 3)
    else:
        model, X, X_test, y, y_test = fitted(256, 256, 256)
    if way == "SVD of the weights":
        model = LowRankCompressor(frozen(model), compression=SHARE, method="weight_svd", **device()).fit(X)
    elif way == "LowRankCompressor":
        model = LowRankCompressor(frozen(model), compression=SHARE, **device()).fit(X)
    elif way == "FeatureMimickingCompressor, one epoch":
        how = {"compression": SHARE, "first_layer": True, "batch_size": 64, "random_state": 0}
        model = FeatureMimickingCompressor(frozen(model), **how, **device()).fit(X, y)
    elif way == "LowRankCompensator, 2 bit":
        how = {"bits": 2, "rank": 8, "adapter_bits": 8, "n_calibration": None}
        model = LowRankCompensator(frozen(model), **how, **device()).fit(X)
    elif way == "SecondOrderPruner, 90 % zeros":
        model = SecondOrderPruner(frozen(model), sparsity=0.9, random_state=0, **device()).fit(X, y)
    return model, X_test, y_test


def stored(model):
    """Numbers and bytes of a model: zeros as a bit each, beside the entries that are left."""
    if hasattr(model, "nbytes_"):
        return model.n_parameters_, model.nbytes_
    if hasattr(model, "n_nonzero_"):
        return model.n_nonzero_, 4 * model.n_nonzero_ + model.n_parameters_ // 8
    return model.n_parameters_, sum(value.nbytes for value in model.weights_.values())


def of_way(way):
    """What a model stores, its accuracy, and milliseconds of 1,000 rows."""
    if way == "LogisticRegression":
        return of_lines()
    model, X_test, y_test = made_small(way)
    numbers, nbytes = stored(model)
    right, many = model.score(X_test, y_test), milliseconds(model.network(), X_test)[0]
    remark = f"{numbers:,} parameters, {nbytes / 1000:.0f} kB, accuracy {right:.3f}, {many:.1f} ms"
    return {"numbers": numbers, "bytes": nbytes, "accuracy": right, "milliseconds": many, "remark": remark}


def of_lines():
    """The same of a linear classifier, in float32."""
    from sklearn.linear_model import LogisticRegression

    X, X_test, y, y_test = digits(0)
    model = LogisticRegression(max_iter=1000).fit(X, y)
    numbers, right = model.coef_.size + model.intercept_.size, model.score(X_test, y_test)
    remark = f"{numbers:,} parameters, {4 * numbers / 1000:.0f} kB, accuracy {right:.3f}"
    return {"numbers": numbers, "bytes": 4 * numbers, "accuracy": right, "remark": remark}


def of_site(way):
    """Accuracy at a site whose images lie one pixel to the right; numbers that its adapter adds."""
    from sklearn.model_selection import train_test_split

    from sklowrank.adapt import LDUAdapter, TuckerAdapter
    from sklowrank.compress import LowRankCompressor

    net, X, X_test, _, y_test = fitted(256, 256, 256)
    if way.endswith("on the small network"):
        net = LowRankCompressor(frozen(net), compression=SHARE, **device()).fit(X).estimator_
    moved = np.roll(X_test.reshape(-1, 8, 8), 1, axis=2).reshape(-1, 64)
    few, rest, labels, truth = train_test_split(moved, y_test, train_size=MOVED, random_state=0, stratify=y_test)
    if way.startswith("LDUAdapter"):
        net = LDUAdapter(frozen(net), head="keep", random_state=0, **device()).fit(few, labels)
    elif way.startswith("TuckerAdapter"):
        net = TuckerAdapter(frozen(net), rank=4, head="keep", random_state=0, **device()).fit(few, labels)
    added = getattr(net, "n_trainable_parameters_", 0)
    right = net.score(rest, truth)
    return {"numbers": added, "accuracy": right, "remark": f"{added:,} numbers, accuracy {right:.3f}"}


def of_prefix(n_components):
    """Accuracies where rows are stored as a few numbers and given back: by a projection for the network, by PCA."""
    from sklearn.decomposition import PCA

    from sklowrank.decomposition import MatryoshkaProjection

    net, X, X_test, _, y_test = fitted(256, 256, 256)
    ours = MatryoshkaProjection(n_components, estimator=frozen(net), random_state=0, **device()).fit(X)
    plain = PCA(n_components).fit(X)
    found = {
        name: net.score(model.inverse_transform(model.transform(X_test)).astype(np.float32), y_test)
        for name, model in (("ours", ours), ("PCA", plain))
    }
    return {
        **found,
        "remark": f"{n_components} of 64 numbers a row: accuracy {found['ours']:.3f}, PCA {found['PCA']:.3f}",
    }


WAYS = (
    "as it is",
    "LowRankCompressor",
    "FeatureMimickingCompressor, one epoch",
    "LowRankCompensator, 2 bit",
    "SecondOrderPruner, 90 % zeros",
    "SVD of the weights",
    "a narrow network, trained anew",
    "LogisticRegression",
)
SITES = (
    "no adapter",
    "LDUAdapter",
    "TuckerAdapter",
    "no adapter, on the small network",
    "TuckerAdapter, on the small network",
)


def one_network(bench):
    """one network: a NetworkClassifier with three hidden layers of 256 units, digits, made small in each of the ways.

    Budgets are 16 % of the parameters, fits have all rows of the training. The second site has images that lie one
    pixel to the right, and 100 labelled rows; adapters keep the head. The last rows store rows, not the network.
    """
    found = {way: bench.measure(way, of_way, way) for way in WAYS}
    whole, ours = found["as it is"], found["LowRankCompressor"]
    bench.claim("accuracy lost by LowRankCompressor", whole.accuracy - ours.accuracy, at_most=0.01)
    bench.claim("its parameters", ours.numbers / whole.numbers, at_most=SHARE)
    tuned = found["FeatureMimickingCompressor, one epoch"]
    bench.claim("accuracy lost by FeatureMimickingCompressor", whole.accuracy - tuned.accuracy, at_most=0.01)
    coarse = found["LowRankCompensator, 2 bit"]
    bench.claim("accuracy lost by LowRankCompensator", whole.accuracy - coarse.accuracy, at_most=0.02)
    sites = {way: bench.measure(f"second site, {way}", of_site, way) for way in SITES}
    for way in SITES[1:3]:
        gained = sites[way].accuracy - sites["no adapter"].accuracy
        bench.claim(f"second site: accuracy gained by {way}", gained, at_least=0.1)
    for n_components in (4, 8, 16):
        row = bench.measure(f"rows as {n_components} numbers", of_prefix, n_components)
        bench.claim(f"rows as {n_components} numbers: accuracy above PCA", row.ours - row.PCA, at_least=0)


CASES = [one_network]
