"""Narrow tables and dense layers of low rank, tuned: ratings of films, digits, and tables of many rows."""

import copy
import os
import time

import numpy as np
import torch
from torch import nn

from benchmarks import data
from benchmarks.compression.low_rank import digits, milliseconds, mlp, networks, raw, relative_error, trained

SPLITS = 2
SHORT = {"max_iter": 0}


def compressor(net, **params):
    """A compressor around a fitted network."""
    from sklearn.frozen import FrozenEstimator

    from sklowrank.compress import FeatureMimickingCompressor

    params = {"device": os.environ["SKLOWRANK_BENCH_DEVICE"]} | params
    return FeatureMimickingCompressor(FrozenEstimator(net), **params)


def size(module):
    """Number of parameters."""
    return sum(parameter.numel() for parameter in module.parameters())


def weight_svd(net, ranks):
    """A copy of a skorch net whose named layers have the truncated SVD of their weights."""
    net = copy.deepcopy(net)
    for name, rank in ranks.items():
        layer = net.module_.get_submodule(name)
        U, s, Vh = torch.linalg.svd(layer.weight.detach().double(), full_matrices=False)
        layer.weight.data = ((U[:, :rank] * s[:rank]) @ Vh[:rank]).to(layer.weight.dtype)
    return net


def trained_on(net, X, y, epochs, seed):
    """A copy of a skorch net after more epochs with its own settings."""
    net = copy.deepcopy(net)
    torch.manual_seed(seed)
    return net.set_params(max_epochs=epochs).partial_fit(X, y)


# Ratings


class Films(nn.Module):
    """Tables of users and films, and a multilayer perceptron."""

    def __init__(self, width, hidden):
        super().__init__()
        self.user, self.item = nn.Embedding(944, width), nn.Embedding(1683, width)
        for table in (self.user, self.item):
            nn.init.normal_(table.weight, std=0.1)
        self.mlp = mlp(2 * width, hidden, hidden, 1)

    def forward(self, x):
        return self.mlp(torch.cat([self.user(x[:, 0]), self.item(x[:, 1])], 1))


def rated(seed):
    """Pairs of the training and of the test, and whether their ratings are four or more."""
    rows = np.loadtxt(data.folder("movielens_100k") / "u.data", dtype=np.int64)
    order = np.random.default_rng(seed).permutation(len(rows))
    pairs, liked = rows[order, :2], (rows[order, 2] >= 4).astype(np.float32)
    return pairs[:80_000], pairs[80_000:], liked[:80_000], liked[80_000:]


def fitted_films(X, y, seed, width=32, hidden=64, epochs=3):
    """A network after some epochs of Adam."""
    from skorch import NeuralNetBinaryClassifier

    torch.manual_seed(seed)
    how = {"optimizer": torch.optim.Adam, "lr": 1e-3, "max_epochs": epochs, "batch_size": 256}
    how |= {"module__width": width, "module__hidden": hidden, "iterator_train__shuffle": True}
    return NeuralNetBinaryClassifier(Films, train_split=None, verbose=0, **how).fit(X, y)


def rating(seed):
    """AUC on test rows and share of the parameters of each way, on one split; seconds of a fit."""
    from sklearn.metrics import roc_auc_score

    X, X_test, y, y_test = rated(seed)
    net = fitted_films(X, y, seed)
    found, times = {}, {}

    def note(name, model, share):
        found[name] = roc_auc_score(y_test, model.predict_proba(X_test)[:, 1]), share

    note("original", net, 1.0)
    note("original, one more epoch", trained_on(net, X, y, 1, seed), 1.0)
    for name, params in OURS.items():
        start = time.process_time()
        labels = None if params.get("max_iter") == 0 else y
        model = compressor(net, random_state=seed, **{"linear_rank": 16, **params}).fit(X, labels)
        times[name] = time.process_time() - start
        note(name, model, model.compression_)
    note(
        "weight SVD, width 4, one shot",
        weight_svd(net, {"user": 4, "item": 4, "mlp.wide2": 16}),
        found["width 4, one shot"][1],
    )
    small = fitted_films(X, y, seed, 4, 16, epochs=4)
    note("small network, four epochs", small, size(small.module_) / size(net.module_))
    return {"found": found, "times": times}


OURS = {
    "width 4, one shot": {"embedding_rank": 4, **SHORT},
    "width 4": {"embedding_rank": 4},
    "width 4, relu within": {"embedding_rank": 4, "inner_activation": "relu"},
    "width 2": {"embedding_rank": 2},
    "compression=0.2, one shot": {"compression": 0.2, **SHORT},
}


def ratings(bench):
    """feature mimicking, ratings: MovieLens-100k, whether a rating is four or more, two random splits of 80/20.

    Tables of users and of films of width 32, then layers of 64, 64 and 1; Adam, three epochs; linear_rank=16. The small
    network has tables of width 4 and layers of 16. Mean AUC on test rows.
    """
    if data.missing("movielens_100k"):
        return bench.skip(data.missing("movielens_100k"))
    splits = [bench.measure(f"split {seed}", rating, seed) for seed in range(SPLITS)]
    auc, share = {}, {}
    for name in splits[0]["found"]:
        auc[name], share[name] = np.mean([row["found"][name] for row in splits], axis=0)
        seconds = [row["times"][name] for row in splits if name in row["times"]]
        took = f", fit {np.mean(seconds):.1f} s" if seconds else ""
        bench.note(name, f"AUC {auc[name]:.4f}, {share[name]:.1%} of the parameters{took}")
    longer, tuned = auc["original, one more epoch"], auc["width 4"]
    bench.claim("share of the parameters, width 4", share["width 4"], at_most=0.17)
    bench.claim("share of the parameters, width 2", share["width 2"], at_most=0.11)
    bench.claim("AUC lost by one shot", auc["original"] - auc["width 4, one shot"], at_most=0.003)
    bench.claim("AUC below the original with one more epoch, width 4", longer - tuned, at_most=0.0035)
    gain = auc["width 2"] - auc["small network, four epochs"]
    bench.claim("AUC above the small network's, width 2", gain, at_least=0.002)
    bench.claim("AUC lost by relu within", tuned - auc["width 4, relu within"], at_most=0.003)


# Digits


def narrow_width(share):
    """The width of three hidden layers with a share of the parameters of those of 256."""
    sizes = {w: 64 * w + 2 * w * w + 10 * w + 3 * w + 10 for w in range(1, 257)}
    return min(sizes, key=lambda w: abs(sizes[w] - share * sizes[256]))


def by_rank(kind, rank):
    """Accuracy and relative error of the outputs on test rows; means of three networks."""
    right, errors = [], []
    for seed, (net, X, X_test, y, y_test) in enumerate(networks()):
        if kind == "svd":
            model = weight_svd(net, {f"wide{i}": rank for i in (1, 2, 3)})
            outputs = raw(model, X_test)
        elif kind == "narrow":
            share = compressor(net, linear_rank=rank, first_layer=True, **SHORT).fit(X[:300]).compression_
            widths = (64, *[narrow_width(share)] * 3, 10)
            model = trained(lambda widths=widths: mlp(*widths), X, y, seed, epochs=45)
            outputs = raw(model, X_test)
        elif kind == "longer":
            model = trained_on(net, X, y, 15, seed)
            outputs = raw(model, X_test)
        else:
            how = SHORT if kind == "one shot" else {"max_iter": 15, "batch_size": 64, "random_state": seed}
            rows, labels = (X[:300], None) if kind == "one shot" else (X, y)
            activation = None if kind in ("one shot", "tuned") else kind
            model = compressor(net, linear_rank=rank, first_layer=True, inner_activation=activation, **how)
            outputs = model.fit(rows, labels).predict_raw(X_test)
        right.append(model.score(X_test, y_test))
        errors.append(relative_error(outputs, raw(net, X_test)))
    accuracy, error = float(np.mean(right)), float(np.mean(errors))
    return {"accuracy": accuracy, "off": error, "remark": f"accuracy {accuracy:.3f}, error of outputs {error:.4f}"}


def images(bench):
    """feature mimicking, digits: three networks 64-256-256-256-10, all wide layers at a rank.

    One shot on 300 rows without labels; tuned for 15 epochs on all training rows. The narrow network has as many
    parameters and as many epochs in all, 45; the original has 15 epochs more.
    """
    found = {}
    for rank in (8, 4):
        for kind in ("one shot", "svd", "tuned", "relu", "silu", "tanh", "narrow"):
            name = {"svd": "weight SVD", "narrow": "narrow from scratch"}.get(kind, kind)
            found[kind, rank] = bench.measure(f"rank {rank}, {name}", by_rank, kind, rank)
    longer = bench.measure("original, 15 more epochs", by_rank, "longer", None)
    bench.claim("accuracy at rank 8, one shot", found["one shot", 8].accuracy, at_least=0.935)
    bench.claim("error at rank 8, one shot", found["one shot", 8].off, at_most=0.03)
    bench.claim("weight SVD's error over ours, rank 8", found["svd", 8].off / found["one shot", 8].off, at_least=2.5)
    bench.claim("accuracy at rank 4, one shot", found["one shot", 4].accuracy, at_least=0.72)
    gain = found["one shot", 4].accuracy - found["svd", 4].accuracy
    bench.claim("the same above the weight SVD's", gain, at_least=0.10)
    gain = found["tuned", 4].accuracy - found["one shot", 4].accuracy
    bench.claim("accuracy gained by 15 epochs, rank 4", gain, at_least=0.10)
    lost = longer.accuracy - found["tuned", 8].accuracy
    bench.claim("accuracy below the original with as many epochs, rank 8", lost, at_most=0.02)


# Tables of many rows


def traffic(kind, width):
    """Relative error of the vectors that a million rows look up in a table of 100,000, by rank; seconds and times."""
    torch.manual_seed(0)
    table = nn.Embedding(100_000, 32)
    ids = (100_000 * np.random.default_rng(0).random((1_000_000, 1)) ** 40).astype(np.int64)
    basis = torch.linalg.qr(torch.randn(32, 8))[0]
    table.weight.data[:1000] = 2 * table.weight.data[:1000, :8] @ basis.T  # nine of ten look-ups
    net = nn.Sequential(table, nn.Flatten(), nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 1)).eval()
    rows = torch.from_numpy(ids[:100_000, 0])
    wanted = table.weight.detach()[rows]
    start = time.process_time()
    if kind == "ours":
        from sklowrank.compress import FeatureMimickingCompressor

        how = {"linear_rank": None, "fuse": False, "device": os.environ["SKLOWRANK_BENCH_DEVICE"]}
        model = FeatureMimickingCompressor(net, embedding_rank=width, **how).fit(ids)
        vectors = model.network()[0](rows).detach()
    else:
        U, s, Vh = torch.linalg.svd(table.weight.detach(), full_matrices=False)
        vectors = ((U[rows, :width] * s[:width]) @ Vh[:width]).detach()
    seconds = time.process_time() - start
    error = relative_error(vectors.numpy().astype(np.float64), wanted.numpy().astype(np.float64))
    return {"off": error, "seconds": seconds, "remark": f"error {error:.4f}"}


def tables(bench):
    """feature mimicking, tables: 100,000 rows of width 32, of which nine of ten look-ups take a thousand.

    These rows lie in eight dimensions, the others in all. Relative error of what is looked up, of fits to a million
    rows, and of the SVD of the table.
    """
    for width in (8, 4):
        ours = bench.measure(f"width {width}", traffic, "ours", width)
        plain = bench.measure(f"width {width}, SVD of the table", traffic, "svd", width)
        bench.claim(f"SVD's error over ours, width {width}", plain.off / ours.off, at_least=2)


def latency():
    """Milliseconds of 1,000 rows and of one, before and after, of a network with tables of width 64."""
    from sklowrank.compress import FeatureMimickingCompressor

    X, X_test, _, _ = digits(0)
    ids = (16 * X).astype(np.int64)
    net = nn.Sequential(nn.Embedding(17, 64), nn.Flatten(), nn.Linear(4096, 256), nn.ReLU(), nn.Linear(256, 10)).eval()
    model = FeatureMimickingCompressor(net, embedding_rank=8, device="cpu").fit(ids)
    found, rows = {}, (16 * X_test).astype(np.int64)
    for name, module in (("before", net), ("after", model.network())):
        many, one = milliseconds(module, rows)
        found[name] = many
        found[f"{name}, remark"] = f"{size(module):,} parameters, {many:.2f} ms, one row {one:.3f} ms"
    return found


def latencies(bench):
    """feature mimicking, latency: 64 columns of one table of width 64, flattened and read by 256 units; width 8.

    Processor time of 1,000 rows and of a single one, one thread. The map behind the table is part of the layer.
    """
    row = bench.measure("network", latency)
    for name in ("before", "after"):
        bench.note(name, row[f"{name}, remark"])
    bench.claim("1,000 rows, times as fast", row.before / row.after, at_least=2)


CASES = [ratings, images, tables, latencies]
