"""Training in a random subspace: a toy problem, digits by dimension and by width, projections, size, cost of a step."""

import os
import pickle
import time

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import StratifiedShuffleSplit, train_test_split
from sklearn.neural_network import MLPClassifier

from benchmarks.harness import clock, quietly
from benchmarks.networks.steps import step

EPOCHS, RATE = 60, 1e-2
BY_DIMENSION = {20: 0.37, 40: 0.54, 80: 0.76, 120: 0.86, 200: 0.92}  # of a prototype
BY_WIDTH = (32, 64, 128)


def digits():
    X, y = load_digits(return_X_y=True)
    return train_test_split(X / 16 - 0.3, y, test_size=0.3, stratify=y, random_state=0)


def network(dim, seed=None, width=64, projection="auto"):
    from sklowrank.neural import NetworkClassifier, RandomSubspace

    rule = None if dim is None else RandomSubspace(dim, projection=projection)
    options = {"training": rule, "learning_rate": RATE, "max_iter": EPOCHS, "tol": 0, "standardize": False}
    device = os.environ["SKLOWRANK_BENCH_DEVICE"]
    return NetworkClassifier((width, width), device=device, random_state=seed, **options)


def sum_of_groups(dim, kind, seeds):
    """The largest and the smallest exp(-loss) over some seeds, by L-BFGS in float64."""
    import torch

    from sklowrank.neural._random_projections import random_projection

    targets, found = torch.arange(1, 11, dtype=torch.float64), []
    for seed in range(seeds):
        projection = random_projection(kind, 1000, dim, seed, dtype=torch.float64)
        start = torch.randn(1000, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        theta = torch.zeros(dim, dtype=torch.float64, requires_grad=True)
        best = torch.optim.LBFGS([theta], max_iter=300, tolerance_grad=1e-12, tolerance_change=0, history_size=30)

        def closure(theta=theta, start=start, projection=projection):
            residual = (start + projection.forward(theta.detach())).reshape(10, 100).sum(1) - targets
            theta.grad = projection.adjoint((2 * residual).repeat_interleave(100))
            return residual.square().sum()

        for _ in range(3):
            best.step(closure)
        found.append(float(torch.exp(-closure())))
    remark = f"exp(-loss) {np.min(found):.4f} to {np.max(found):.4f}, median {np.median(found):.4f}, {seeds} seeds"
    return {"least": min(found), "most": max(found), "median": np.median(found), "remark": remark}


def accuracy(dim, width=64, projection="auto", seeds=2):
    """Mean accuracy on the other digits."""
    X, other, y, truth = digits()
    found, times = [], []
    for seed in range(seeds):
        model, seconds = clock(lambda seed=seed: network(dim, seed, width, projection).fit(X, y), budget=0)
        found.append(model.score(other, truth))
        times.append(seconds)
    return {
        "accuracy": np.mean(found),
        "seconds": min(times),
        "remark": f"accuracy {np.mean(found):.3f} of {seeds} seeds, D = {model.n_dense_parameters_:,}",
    }


def sklearn_network():
    X, other, y, truth = digits()
    options = {"batch_size": 64, "learning_rate_init": RATE, "max_iter": EPOCHS, "tol": 0, "n_iter_no_change": EPOCHS}
    models, times = [], []
    for seed in range(2):
        model = MLPClassifier((64, 64), alpha=0, random_state=seed, **options)
        fitted, seconds = clock(lambda model=model: quietly(model.fit, X, y), budget=0)
        models.append(fitted.score(other, truth))
        times.append(seconds)
    return {"accuracy": np.mean(models), "seconds": min(times), "remark": f"accuracy {np.mean(models):.3f} of 2 seeds"}


def searched():
    """The intrinsic dimension of digits, with the rows of the other cases held out."""
    from sklowrank.inspection import IntrinsicDimension

    X, y = load_digits(return_X_y=True)
    cv = StratifiedShuffleSplit(1, test_size=0.3, random_state=0)
    search = IntrinsicDimension(network(None), d_min=32, cv=cv, random_state=0)
    start = time.perf_counter()
    search.fit(X / 16 - 0.3, y)
    curve = ", ".join(f"{d}: {mean:.2f}" for d, mean in zip(search.curve_["d"], search.curve_["mean"]))
    remark = f"dimension {search.intrinsic_dim_}, baseline {search.baseline_score_:.3f}; {curve}"
    return {"dimension": search.intrinsic_dim_, "seconds": time.perf_counter() - start, "remark": remark}


def applied(kind, n_full, dim):
    """Seconds of a product with P, of one with its transpose, and of drawing it."""
    import torch

    from sklowrank.neural._random_projections import random_projection

    projection, drawing = clock(lambda: random_projection(kind, n_full, dim, 0), repeats=1)
    theta, g = torch.randn(dim), torch.randn(n_full)
    forward = clock(lambda: projection.forward(theta))[1]
    back = clock(lambda: projection.adjoint(g))[1]
    return {"seconds": forward, "remark": f"transpose {back:.2g} s, drawn in {drawing:.2g} s"}


def stored(dim, projection):
    """Bytes of the pickle above twelve a dimension, and the largest difference of a prediction after it."""
    X, other, y, _ = digits()
    model = network(dim, 0, projection=projection).set_params(max_iter=3).fit(X, y)
    bytes_ = pickle.dumps(model)
    gap = np.abs(pickle.loads(bytes_).predict_proba(other) - model.predict_proba(other)).max()
    whole = len(pickle.dumps(network(None, 0).set_params(max_iter=3).fit(X, y)))
    _, seconds = clock(lambda: model.predict(other))
    remark = f"{len(bytes_):,} bytes; all weights {whole:,}; predictions in {seconds:.2g} s"
    return {"above": len(bytes_) - 12 * dim, "gap": gap, "seconds": seconds, "remark": remark}


# Cases


def toy(bench):
    """random subspace, toy: 1,000 parameters, ten groups of 100 with given sums, L-BFGS in float64, ten seeds."""
    for kind in ("dense", "sparse", "fastfood"):
        found = {d: bench.measure(f"{kind}, d = {d}", sum_of_groups, d, kind, 10) for d in (9, 10, 20)}
        bench.claim(f"{kind}: exp(-loss) at d = 9, median", found[9].median, at_most=1e-3)
        bench.claim(f"{kind}: exp(-loss) at d = 10, smallest", found[10].least, at_least=0.999)
        bench.claim(f"{kind}: exp(-loss) at d = 20, smallest", found[20].least, at_least=0.999)


def dimensions(bench):
    """random subspace, digits: two hidden layers of 64, 60 epochs of Adam at 0.01, accuracies of two seeds."""
    bench.measure("all weights", accuracy, None)
    bench.measure("MLPClassifier", sklearn_network, package="scikit-learn")
    for dim, prototype in BY_DIMENSION.items():
        ours = bench.measure(f"d = {dim}", accuracy, dim)
        bench.claim(f"d = {dim}: accuracy from {prototype}", abs(ours.accuracy - prototype), at_most=0.06)


def search(bench):
    """random subspace, search: IntrinsicDimension on digits, the smallest d with 0.9 of the accuracy of all weights."""
    found = bench.measure("IntrinsicDimension", searched)
    bench.claim("intrinsic dimension, least", found.dimension, at_least=90)
    bench.claim("intrinsic dimension, most", found.dimension, at_most=180)


def widths(bench):
    """random subspace, widths: digits at d = 60, hidden layers of 32, 64 and 128."""
    found = [bench.measure(f"width {width}", accuracy, 60, width).accuracy for width in BY_WIDTH]
    bench.claim("accuracy, largest difference", max(found) - min(found), at_most=0.12)


def projections(bench):
    """random subspace, projections: digits at d = 120; a product of fastfood for a million weights."""
    kinds = ("dense", "sparse", "fastfood")
    found = [bench.measure(f"{kind}, d = 120", accuracy, 120, 64, kind, 4).accuracy for kind in kinds]
    bench.claim("accuracy, largest difference", max(found) - min(found), at_most=0.05)
    product = bench.measure("fastfood, d = 1,000, D = 1,000,000", applied, "fastfood", 10**6, 1000)
    bench.measure("sparse, d = 1,000, D = 1,000,000", applied, "sparse", 10**6, 1000)
    bench.measure("dense, d = 200, D = 100,000", applied, "dense", 10**5, 200)
    bench.claim("seconds of a product of fastfood", product.seconds, at_most=0.5)


def size(bench):
    """random subspace, size: the pickle of a fitted classifier on digits, fastfood."""
    for dim in (120, 2000):
        found = bench.measure(f"d = {dim}", stored, dim, "fastfood")
        bench.claim(f"d = {dim}: bytes above 12 d", found.above, at_most=20_000)
        bench.claim(f"d = {dim}: change of predictions", found.gap, at_most=0.0)


def cost(bench):
    """random subspace, a step: two hidden layers of 1,024, batches of 64 rows."""
    plain = bench.measure("plain training", step, None, {})
    for params in ({"subspace_dim": 200}, {"subspace_dim": 10}, {"subspace_dim": 200, "projection": "sparse"}):
        ours = bench.measure(f"RandomSubspace, {params}", step, "RandomSubspace", params)
        bench.note(
            "of plain training", f"{params}: time {ours.seconds / plain.seconds:.2f}, memory {ours.added:.0f} MB"
        )


CASES = [toy, dimensions, search, widths, projections, size, cost]
