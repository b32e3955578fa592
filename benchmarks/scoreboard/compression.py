"""Fitted networks made smaller."""

import copy

import numpy as np
from sklearn.neural_network import MLPClassifier

from benchmarks.compression.low_rank import digits, mlp, raw, relative_error, trained
from benchmarks.scoreboard.entries import Clock, Contender, Entry

SHARE = 0.1


def frozen(net):
    from sklearn.frozen import FrozenEstimator

    return FrozenEstimator(net)


def network(seed):
    """A network 64-256-256-256-10 after 30 epochs, and its rows."""
    X, X_new, y, y_new = digits(seed)
    return trained(lambda: mlp(64, 256, 256, 256, 10), X, y, seed), X, X_new, y, y_new


# Protocols


def made_small(make, seed):
    """Accuracy of what is made of the network, or beside it, with a tenth of its parameters."""
    net, X, X_new, y, y_new = network(seed)
    with Clock() as clock:
        model = make(seed)(net, X, y)
    return 1 - np.mean(model.predict(X_new) == y_new), clock.seconds


def in_two_bits(make, seed):
    net, X, X_new, _, _ = network(seed)
    with Clock() as clock:
        model = make(seed)(net, X[:300])
    return relative_error(model.predict_raw(X_new), raw(net, X_new)), clock.seconds


def rated_films(make, seed):
    from sklearn.metrics import roc_auc_score

    from benchmarks.compression import feature_mimicking as films

    X, X_new, y, y_new = films.rated(seed)
    net = films.fitted_films(X, y, seed)
    with Clock() as clock:
        model = make(seed)(net, X, y)
    return 1 - roc_auc_score(y_new, model.predict_proba(X_new)[:, 1]), clock.seconds


def fewer_numbers(make, seed):
    """The outputs of a transformer whose keys and values have a quarter of their numbers."""
    from benchmarks.compression.projection import classifier, reader

    X, X_new, y, _ = digits(seed)
    X, X_new = X.reshape(-1, 8, 8), X_new.reshape(-1, 8, 8)
    net = classifier(reader, X, y, seed, max_epochs=20, optimizer__weight_decay=0.0)
    truth = raw(net, X_new)
    with Clock() as clock:
        outputs = make(seed)(net, X)
    return relative_error(outputs(X_new), truth), clock.seconds


def pruned(make, seed):
    """A network 64-64-64-10 of which a tenth of the weights is left, or another one of that size."""
    from benchmarks.networks.second_order import digits as rows
    from sklowrank.neural import NetworkClassifier

    X, X_new, y, y_new = rows()
    options = {"max_iter": 30, "learning_rate": 2e-3, "tol": 0, "standardize": False, "random_state": seed}
    net = NetworkClassifier((64, 64), **options).fit(X, y)
    with Clock() as clock:
        predict = make(seed)(net, X, y)
    return 1 - np.mean(predict(X_new) == y_new), clock.seconds


# Contenders


def low_rank(method):
    def make(seed):
        from sklowrank.compress import LowRankCompressor

        return lambda net, X, y: LowRankCompressor(frozen(net), compression=SHARE, method=method).fit(X)

    return make


def narrow(seed):
    """A network of three hidden layers of one width, with a tenth of the parameters."""
    whole = 64 * 256 + 2 * 256**2 + 10 * 256
    width = min(range(1, 257), key=lambda w: abs(64 * w + 2 * w * w + 10 * w - SHARE * whole))
    options = {"batch_size": 64, "max_iter": 30, "tol": 0, "n_iter_no_change": 99, "alpha": 0, "random_state": seed}
    return lambda net, X, y: MLPClassifier((width,) * 3, **options).fit(X, y)


def compensated(**params):
    def make(seed):
        from sklowrank.compress import LowRankCompensator

        how = {"bits": 2, "modules": "wide*", "n_calibration": None, **params}
        return lambda net, X: LowRankCompensator(frozen(net), **how).fit(X)

    return make


def mimicked(seed):
    from sklowrank.compress import FeatureMimickingCompressor

    how = {"embedding_rank": 4, "linear_rank": 16, "random_state": seed}
    return lambda net, X, y: FeatureMimickingCompressor(frozen(net), **how).fit(X, y)


def small_films(seed):
    """A network with tables of width 4 and layers of 16, trained as long as ours in all."""
    from benchmarks.compression import feature_mimicking as films

    return lambda net, X, y: films.fitted_films(X, y, seed, 4, 16, epochs=4)


def factored_films(seed):
    """Tables and the wide layer as products of their truncated singular values, and one more epoch, in torch."""
    import torch
    from torch import nn

    def halves(W, rank):
        U, s, Vh = torch.linalg.svd(W.detach(), full_matrices=False)
        return U[:, :rank] * s[:rank].sqrt(), s[:rank, None].sqrt() * Vh[:rank]

    def fit(net, X, y):
        net = copy.deepcopy(net)
        for name in ("user", "item"):
            left, right = halves(getattr(net.module_, name).weight, 4)
            table, out = nn.Embedding.from_pretrained(left, freeze=False), nn.Linear(4, 32, bias=False)
            out.weight = nn.Parameter(right.T.clone())
            setattr(net.module_, name, nn.Sequential(table, out))
        layer = net.module_.mlp.wide2
        left, right = halves(layer.weight, 16)
        down, up = nn.Linear(layer.in_features, 16, bias=False), nn.Linear(16, layer.out_features)
        down.weight, up.weight, up.bias = nn.Parameter(right.clone()), nn.Parameter(left.clone()), layer.bias
        net.module_.mlp.wide2 = nn.Sequential(down, up)
        torch.manual_seed(seed)
        best = torch.optim.Adam(net.module_.parameters(), lr=1e-3)
        rows, target = torch.from_numpy(X), torch.from_numpy(y)
        net.module_.train()
        for at in torch.randperm(len(rows)).split(256):
            best.zero_grad()
            logits = net.module_(rows[at]).squeeze(-1)
            nn.functional.binary_cross_entropy_with_logits(logits, target[at]).backward()
            best.step()
        return net

    return fit


def caches(**params):
    def make(seed):
        from sklowrank.compress import KVCacheCompressor

        def fit(net, X):
            return KVCacheCompressor(net.module_, n_components=0.25, **params).fit(X).predict_raw

        return fit

    return make


def cut_heads(seed):
    """The weights of keys and values, each head by itself, cut to a quarter of their singular values, in torch."""
    import torch

    def fit(net, X):
        module = copy.deepcopy(net.module_).eval()
        for block in module.blocks:
            weight = block.self_attn.in_proj_weight.data
            n_heads, width = block.self_attn.num_heads, weight.shape[1]
            size = width // n_heads
            for at in range(width, 3 * width, size):
                U, s, Vh = torch.linalg.svd(weight[at : at + size], full_matrices=False)
                weight[at : at + size] = (U[:, : size // 4] * s[: size // 4]) @ Vh[: size // 4]

        def outputs(rows):
            with torch.inference_mode():
                return module(torch.from_numpy(rows)).numpy()

        return outputs

    return fit


def second_order(seed):
    from sklowrank.compress import SecondOrderPruner

    def fit(net, X, y):
        return SecondOrderPruner(frozen(net), sparsity=0.9, random_state=seed).fit(X, y).predict

    return fit


def thirteen_units(seed):
    options = {"batch_size": 64, "learning_rate_init": 2e-3, "max_iter": 30, "tol": 0, "n_iter_no_change": 99}
    return lambda net, X, y: MLPClassifier((13,), alpha=0, random_state=seed, **options).fit(X, y).predict


def by_magnitude(seed):
    """Global magnitudes of torch, and ten epochs of training of what is left."""

    def fit(net, X, y):
        import torch
        from torch import nn
        from torch.nn.utils.prune import L1Unstructured, global_unstructured

        from benchmarks.scoreboard.references_torch import tensor, trained

        module, rows, target = net.network().requires_grad_(True), tensor(X), torch.from_numpy(y)
        layers = [(layer, "weight") for layer in module if isinstance(layer, nn.Linear)]
        global_unstructured(layers, L1Unstructured, amount=0.9)

        def loss(at):
            return nn.functional.cross_entropy(module(rows[at]), target[at])

        trained(module, loss, len(X), rate=2e-3, epochs=10, batch_size=64, seed=seed)

        def predict(new):
            with torch.inference_mode():
                return module(tensor(new)).argmax(1).numpy()

        return predict

    return fit


WRONG = "1 - accuracy"
LARGE = "a network 64-256-256-256-10 on digits, a tenth of its parameters"
ENTRIES = [
    Entry(
        "LowRankCompressor",
        LARGE,
        WRONG,
        made_small,
        Contender("without training", low_rank("output_pca")),
        Contender("MLPClassifier of that size, trained anew", narrow),
        Contender("singular values of the weights", low_rank("weight_svd")),
        3,
    ),
    Entry(
        "LowRankCompensator",
        "a network 64-256-256-256-10 on digits, wide layers in 2 bits",
        "squared change of the outputs over their variance",
        in_two_bits,
        Contender("rank 4 in 8 bits, 9.7 % of the bytes", compensated(rank=4, adapter_bits=8)),
        Contender("groups of 32, no path, 11.4 % of the bytes", compensated(rank=0, group_size=32)),
        Contender("singular values of the change, rank 4", compensated(rank=4, adapter_bits=8, method="svd")),
        3,
    ),
    Entry(
        "FeatureMimickingCompressor",
        "MovieLens-100k, tables of width 32 and a network; a seventh of the parameters",
        "1 - AUC",
        rated_films,
        Contender("width 4, one epoch", mimicked),
        Contender("small network in torch, trained anew", small_films),
        Contender("singular values, one epoch in torch", factored_films),
        2,
        ("movielens_100k",),
    ),
    Entry(
        "KVCacheCompressor",
        "transformers that read digits, a quarter of the numbers of keys and values",
        "squared change of the outputs over their variance",
        fewer_numbers,
        Contender("default", caches()),
        Contender("principal components of each head", caches(init="pca", group_ranks="uniform")),
        Contender("singular values of the weights in torch", cut_heads),
        3,
    ),
    Entry(
        "SecondOrderPruner",
        "a network 64-64-64-10 on digits, a tenth of its weights",
        WRONG,
        pruned,
        Contender("without training", second_order),
        Contender("MLPClassifier of 13 units, as many parameters", thirteen_units),
        Contender("global magnitudes of torch, 10 epochs more", by_magnitude),
        3,
    ),
]
