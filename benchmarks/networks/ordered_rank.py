"""Ordered factors: the best map of every rank from one fit, digits at every size, cost of a step."""

import os
import warnings

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

from benchmarks.harness import clock, quietly
from benchmarks.networks.steps import step

RANKS, EPOCHS, SEEDS = (2, 3, 4, 5, 6, 8, 12), 60, 3
STEPS, BATCH, RATE = 8000, 64, 3e-3


def digits():
    X, y = load_digits(return_X_y=True)
    return train_test_split((X / 16 - 0.3).astype(np.float32), y, test_size=0.3, stratify=y, random_state=0)


def network(rule, seed, rate=RATE):
    from sklowrank.neural import NetworkClassifier, OrderedRank

    return NetworkClassifier(
        (128, 128),
        training=None if rule is None else OrderedRank(**rule),
        learning_rate=rate,
        max_iter=EPOCHS,
        tol=0,
        standardize=False,
        device=os.environ["SKLOWRANK_BENCH_DEVICE"],
        random_state=seed,
    )


def linear_map(seed=0):
    """Largest relative error over the ranks of the first components of a linear fit, against the nearest matrix."""
    from skorch.callbacks import LRScheduler

    from sklowrank.neural import NetworkRegressor, OrderedRank

    rng = np.random.default_rng(seed)
    U, V = (np.linalg.qr(rng.normal(size=(n, 8)))[0] for n in (20, 12))
    s = np.array([4, 3, 2, 1.5, 1, 0.7, 0.4, 0.2])
    X = rng.normal(size=(STEPS * BATCH // 5, 12))
    X *= 12**0.5 / np.linalg.norm(X, axis=1, keepdims=True)
    model = NetworkRegressor(
        (),
        training=OrderedRank(0.0, threshold=0, skip_last=False),
        net_params={"callbacks": [("decay", LRScheduler("CosineAnnealingLR", step_every="batch", T_max=STEPS))]},
        learning_rate=0.01,
        batch_size=BATCH,
        max_iter=5,
        tol=0,
        standardize=False,
        device=os.environ["SKLOWRANK_BENCH_DEVICE"],
        random_state=seed,
    )
    _, seconds = clock(lambda: quietly(model.fit, X.astype(np.float32), (X @ (V * s) @ U.T).astype(np.float32)), 0)
    up, down = (model.weights_[f"0.{name}"].astype(np.float64) for name in ("up", "down"))
    errors = []
    for r in range(1, 9):
        best = (U[:, :r] * s[:r]) @ V[:, :r].T
        errors.append(np.linalg.norm(up[:, :r] @ down[:r] - best) / np.linalg.norm(best))
    remark = f"relative errors at ranks 1 to 8: {', '.join(f'{e:.3f}' for e in errors)}"
    return {"error": max(errors), "seconds": seconds, "remark": remark}


def at_rank(model, ranks):
    """Return the model cut by its order; a plain one by the singular values of its weights."""
    import torch

    from sklowrank._nets.architecture import edited
    from sklowrank._nets.layers import ThinLinear

    X, y = digits()[1::2]
    if model.training is not None:
        own = model.training_["ranks"]
        small = model.resized({path: min(rank, own[path]) for path, rank in zip(own, ranks)})
        return small.score(X, y)
    net = model.network()
    for path, rank in zip(("0", "2"), ranks):
        edited(net, path, ThinLinear.nearest_to(net.get_submodule(path), rank))
    with torch.inference_mode():
        return float((net(torch.from_numpy(X)).argmax(1).numpy() == y).mean())


def sizes(rule, rate=RATE):
    """Medians of three seeds: accuracy, share of the dense parameters, accuracy at each rank, and the order."""
    X, X_new, y, y_new = digits()
    right, times, shares, found, tails = [], [], [], {}, []
    for seed in range(SEEDS):
        model = network(rule, seed, rate)
        times.append(clock(lambda model=model: quietly(model.fit, X, y), 0)[1])
        right.append(model.score(X_new, y_new))
        shares.append(model.n_parameters_ / model.n_dense_parameters_)
        for ranks in [(r, r) for r in RANKS] + [(6, 5)]:
            found.setdefault(ranks, []).append(at_rank(model, ranks))
        tails += [np.diff(values).max() for values in model.training_.get("importances", {}).values()]
    found = {str(ranks): float(np.median(values)) for ranks, values in found.items()}
    curve = [found[str((r, r))] for r in RANKS] + [float(np.median(right))]
    drop = float(-np.diff(curve).min())
    remark = (
        f"accuracy {np.median(right):.3f}, {np.median(shares):.2f} of the parameters, ranks {model.ranks_}; "
        + ", ".join(f"{name} {value:.3f}" for name, value in found.items())
    )
    order = max(tails) if tails else np.nan
    return {"right": np.median(right), "share": np.median(shares), "drop": drop, "order": order,
            "seconds": min(times), "error": 1 - np.median(right), "remark": remark, **found}  # fmt: skip


def peer(name):
    """Median accuracy of three seeds of a dense network of another package."""
    X, X_new, y, y_new = digits()
    warnings.simplefilter("ignore")  # a set number of epochs
    right, times = [], []
    for seed in range(SEEDS):
        if name == "sklearn":
            model = MLPClassifier(
                (128, 128),
                batch_size=BATCH,
                max_iter=EPOCHS,
                learning_rate_init=RATE,
                alpha=0,
                tol=0,
                random_state=seed,
            )
        else:
            model = skorch_net(seed)
        times.append(clock(lambda model=model: model.fit(X, y), 0)[1])
        right.append(np.mean(model.predict(X_new) == y_new))
    return {"right": np.median(right), "error": 1 - np.median(right), "seconds": min(times),
            "remark": f"accuracy {np.median(right):.3f}"}  # fmt: skip


def skorch_net(seed):
    import torch
    from skorch import NeuralNetClassifier
    from torch import nn

    torch.manual_seed(seed)
    module = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10))
    settings = {"batch_size": BATCH, "iterator_train__shuffle": True, "train_split": None, "verbose": 0}
    optimizer = {"optimizer": torch.optim.Adam, "lr": RATE, "max_epochs": EPOCHS}
    return NeuralNetClassifier(module, criterion=nn.CrossEntropyLoss, **settings, **optimizer)


# Cases


def every_rank(bench):
    """ordered rank, linear map: 20 x 12 of rank 8, rows on a sphere, 8,000 steps of Adam at 0.01, cosine decay."""
    ours = bench.measure("OrderedRank", linear_map)
    bench.claim("largest relative error of ranks 1 to 8", ours.error, at_most=0.03)


def every_size(bench):
    """ordered rank, digits: 70/30, two hidden layers of 128, 60 epochs of Adam at 0.003, medians of three seeds.

    Pairs are ranks. Plain networks are cut by singular value decompositions of their weights after training.
    """
    plain = bench.measure("plain training", sizes, None)
    ours = bench.measure("OrderedRank", sizes, {})
    strong = bench.measure("OrderedRank(0.001)", sizes, {"group_lasso": 1e-3})
    for name, rule in {
        "sampler='independent'": {"sampler": "independent"},
        "distill=False": {"distill": False},
        "full_pass=False": {"full_pass": False},
        "sampler=None": {"sampler": None},
    }.items():
        bench.measure(f"OrderedRank({name})", sizes, rule)
    bench.measure("plain training, step size 0.001", sizes, None, 1e-3)
    bench.measure("OrderedRank, step size 0.001", sizes, {}, 1e-3)
    bench.measure("MLPClassifier", peer, "sklearn", package="scikit-learn")
    bench.measure("skorch net", peer, "skorch", package="skorch")
    bench.claim("accuracy lost against plain training", plain.right - ours.right, at_most=0.015)
    bench.claim("share of the dense parameters", ours.share, at_most=0.5)
    bench.claim("group_lasso=0.001, share of the dense parameters", strong.share, at_most=0.5)
    name, small = str((8, 8)), str((6, 5))
    bench.claim("rank 8, accuracy above plain training cut to ranks (6, 5)", ours[name] - plain[small], at_least=0.05)
    bench.claim("rank 8, accuracy above plain training cut to rank 8", ours[name] - plain[name], at_least=0.0)
    bench.claim("rank 4, accuracy above plain training cut to rank 4",
                ours[str((4, 4))] - plain[str((4, 4))], at_least=0.1)  # fmt: skip
    bench.claim("largest rise of importances along components", ours.order, at_most=0.0)
    bench.claim("largest fall of accuracy from a rank to the next", ours.drop, at_most=0.02)


def cost(bench):
    """ordered rank, a step: two hidden layers of 1,024, batches of 64 rows; components are dropped as they are."""
    plain = bench.measure("plain training", step, None, {})
    ours = bench.measure("OrderedRank", step, "OrderedRank", {})
    whole = bench.measure("OrderedRank(threshold=0)", step, "OrderedRank", {"threshold": 0})
    once = bench.measure("OrderedRank(threshold=0, full_pass=False)", step, "OrderedRank",
                         {"threshold": 0, "full_pass": False})  # fmt: skip
    bench.claim("time of a step, of plain training", ours.seconds, plain.seconds, at_most=4)
    bench.note("nothing dropped, against plain", f"{whole.seconds / plain.seconds:.2f} times the time, "
               f"{whole.added / plain.added:.2f} times the memory")  # fmt: skip
    bench.note("nothing dropped, one pass, against plain", f"{once.seconds / plain.seconds:.2f} times the time")
    bench.claim("memory added, of plain training", ours.added, plain.added, at_most=2.5)


CASES = [every_rank, every_size, cost]
