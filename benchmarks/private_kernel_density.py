"""Answers about rows that are protected: `PrivateKernelDensity`, `PrivateDistanceSum`, `PrivateSimilarityClassifier`.

Every private method here has (epsilon, delta) for adding or removing a row, delta 1e-6 unless it is 0. Errors are
means over seeds of the noise. «Cosine features» is a release of shifted random cosines with Laplace noise, the best of
three widths, with the exact number of rows for free; «tree of counts» is a dyadic tree of noisy counts for each column.
Where no privacy is guaranteed the name says so; diffprivlib, which has private classifiers, cannot be imported beside a
current scikit-learn. Seconds are those of one fit.
"""

import math
import os
import warnings

import numpy as np
from scipy.stats import beta, norm
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier

from benchmarks.data import bundled, clusters_in_a_plane, distances, within_public_ranges
from benchmarks.harness import clock
from benchmarks.peers import distance_sums_by_trees, kernel_means_by_cosines

TITLE = "Private kernel densities, distance sums and a classifier"


def ours(name, **params):
    from sklowrank import privacy

    warnings.simplefilter("ignore")  # seeds, which tests of noise need
    return getattr(privacy, name)(device=os.environ["SKLOWRANK_BENCH_DEVICE"], **params)


# Data


def pixels():
    X = bundled("digits")[0] / 16
    return X[:1500], X[1500:], 1.5


DENSITIES = {"plane": clusters_in_a_plane, "digits": pixels}


def kernel_means(X, Y, h):
    return np.array([np.exp(-np.square(X - q).sum(1) / (2 * h * h)).mean() for q in Y])


# Measured functions: each runs in a fresh process


def density(data, epsilon, delta, seeds=5, **params):
    """Mean error of the mean kernel."""
    X, Y, h = DENSITIES[data]()
    truth = kernel_means(X, Y, h)
    errors, times = [], []
    for seed in range(seeds):
        model = ours("PrivateKernelDensity", epsilon=epsilon, delta=delta, bandwidth=h, random_state=seed, **params)
        seconds = clock(lambda model=model: model.fit(X))[1]
        errors.append(np.abs(model.kernel_sums(Y) / len(X) - truth).mean())
        times.append(seconds)
    return {"error": np.mean(errors), "seconds": min(times), "remark": f"{len(model.amplitudes_)} waves"}


def random_waves(data, epsilon, delta):
    return density(data, epsilon, delta, feature_map="rff", bounds=(0, 1))


def grid(data, epsilon, delta):
    return density(data, epsilon, delta, bounds=(0, 1))


def many_waves(data, epsilon, delta):
    return density(data, epsilon, delta, seeds=3, n_components=4096)


def cosine_features(data, epsilon):
    """Shifted cosines with Laplace noise, the best of three widths."""
    X, Y, h = DENSITIES[data]()
    truth, found = kernel_means(X, Y, h), {}
    for m in (50, 200, 1000):
        means = [kernel_means_by_cosines(X, Y, h, epsilon, m, seed) for seed in range(3)]
        found[m] = np.mean([np.abs(part - truth).mean() for part in means])
    best = min(found, key=found.get)
    return {"error": found[best], "remark": f"{best} features"}


def directions(orthogonal):
    """Error without noise of 256 waves on digits, orthogonal or independent; eight seeds."""
    X, Y, h = pixels()
    truth, errors = kernel_means(X, Y, h), []
    for seed in range(8):
        if orthogonal:
            model = ours("PrivateKernelDensity", epsilon=1e6, bandwidth=h, n_components=256, random_state=seed)
            found = model.fit(X).kernel_sums(Y) / len(X)
        else:
            W = np.random.default_rng(seed).standard_normal((64, 256)) / h
            total = np.r_[np.cos(X @ W).sum(0), np.sin(X @ W).sum(0)] / 256
            found = np.hstack([np.cos(Y @ W), np.sin(Y @ W)]) @ total / len(X)
        errors.append(np.abs(found - truth).mean())
    return {"error": np.mean(errors)}


def distance_sums_of(d, delta, seeds):
    """Mean error of sums of absolute differences."""
    X, Y, truth = distances(d)
    errors = []
    for seed in range(seeds):
        model = ours("PrivateDistanceSum", delta=delta, bounds=(0, 1), random_state=seed).fit(X)
        errors.append(np.abs(model.distance_sums(Y) - truth).mean())
    return {"error": np.mean(errors), "remark": f"{model.mechanism_}, sums of {truth.mean():.0f}"}


def tree_of_counts(d, seeds):
    """Mean error of trees of noisy counts."""
    X, Y, truth = distances(d)
    return {"error": np.mean([np.abs(distance_sums_by_trees(X, Y, seed) - truth).mean() for seed in range(seeds)])}


def classify(data, seeds, **params):
    """Share of wrong classes on held-out rows."""
    X, y, h = within_public_ranges(data)
    X, X_new, y, y_new = train_test_split(X, y, test_size=0.3, random_state=0, stratify=y)
    right, times = [], []
    for seed in range(seeds):
        settings = {"bandwidth": h, "classes": np.unique(y), "random_state": seed, **params}
        model = ours("PrivateSimilarityClassifier", **settings)
        times.append(clock(lambda model=model: model.fit(X, y))[1])
        right.append(model.score(X_new, y_new))
    return {"error": 1 - np.mean(right), "right": np.mean(right), "seconds": min(times)}


def by_mean(data):
    return classify(data, 6)


def by_sum(data):
    return classify(data, 6, class_weighting="sum")


def by_linear_pure(data):
    return classify(data, 40, similarity="linear", delta=0.0, bounds=(0, 1))


def without_noise(data):
    return classify(data, 1, epsilon=1e6)


def not_private(data, name):
    X, y, _ = within_public_ranges(data)
    X, X_new, y, y_new = train_test_split(X, y, test_size=0.3, random_state=0, stratify=y)
    model = KNeighborsClassifier() if name == "KNeighborsClassifier" else LogisticRegression(max_iter=1000)
    model, seconds = clock(lambda: model.fit(X, y))
    return {"error": 1 - model.score(X_new, y_new), "seconds": seconds}


def spread(mechanism):
    """How far the spread of the entries of 200 sketches is from noise_scale_, relative; entries off the lattice."""
    X = np.random.default_rng(30).random((30, 3))
    params = {"bandwidth": 0.5, "feature_map": "rff", "n_components": 64, "feature_random_state": 0}
    fits = [ours("PrivateKernelDensity", mechanism=mechanism, random_state=s, **params).fit(X) for s in range(200)]
    found = np.sqrt(np.square(np.std([f.sketch_ for f in fits], axis=0, ddof=1)).mean())
    ratio = math.sqrt(2) if mechanism == "laplace" else 1.0
    lattice = np.array([f.sketch_ for f in fits]) * 2**20
    return {"error": abs(found / (ratio * fits[0].noise_scale_) - 1), "off": float((lattice != np.rint(lattice)).sum())}


def sampler(mechanism):
    """The largest |z| of the frequencies of -5 to 5 among four million draws of scale 1.5."""
    from sklowrank.privacy._mechanism import discrete_gaussian, discrete_laplace, system_words

    n, K = 4_000_000, np.arange(-60, 61)
    sample = discrete_laplace if mechanism == "laplace" else discrete_gaussian
    draws, seconds = clock(lambda: sample(1.5, n, system_words))
    weights = np.exp(-np.abs(K) / 1.5) if mechanism == "laplace" else np.exp(-np.square(K / 1.5) / 2)
    p = weights / weights.sum()
    z = [((draws == k).sum() - n * q) / math.sqrt(n * q * (1 - q)) for k, q in zip(K, p) if abs(k) <= 5]
    return {"error": np.abs(z).max(), "seconds": seconds}


def draws(backend):
    """Microseconds of a draw of a large scale."""
    from sklowrank.privacy._mechanism import add_noise, system_words

    zeros = np.zeros(20_480, dtype=np.int64)
    add_noise(zeros[:10], "gaussian", 4.9e6, backend, system_words)
    seconds = clock(lambda: add_noise(zeros, "gaussian", 4.9e6, backend, system_words))[1]
    return {"seconds": seconds, "remark": f"{seconds / len(zeros) * 1e6:.1f} microseconds a draw"}


def audit(similarity, mechanism, epsilon, delta, share=1.0, n=8000, seed=0):
    """What an attacker can prove from n releases with a row and n without it, with a confidence of 99 %.

    `share` of the noise is drawn. Each class of a classifier is a release of its own, so two fits are enough.
    """
    from sklowrank.privacy import _mechanism

    params = {"similarity": similarity, "mechanism": mechanism, "epsilon": epsilon, "delta": delta, "bandwidth": 1.0}
    params |= {"classes": range(n + 1), "n_components": 1, "feature_random_state": 0, "noise_backend": "builtin"}
    model, draw = ours("PrivateSimilarityClassifier", **params), _mechanism.add_noise
    row = np.ones((1, 1))  # on the sphere; or where cosine and sine are equal, which is the most in the 1-norm
    if similarity != "linear":
        row = math.pi / 4 / model.fit(row, [n]).frequencies_
    _mechanism.add_noise = lambda sums, name, scale, *rest: draw(sums, name, share * scale, *rest)
    try:
        seen = []
        for i, labels in enumerate((np.arange(n), np.full(n, n))):
            model.set_params(random_state=2 * seed + i).fit(np.repeat(row, n, 0), labels)
            weight = model._fitted["count"]  # what a row adds to the count
            seen.append(np.column_stack([model.sketch_, weight * model.class_counts_])[:n])
    finally:
        _mechanism.add_noise = draw
    signal = np.r_[[1.0] if similarity == "linear" else [math.sqrt(0.5)] * 2, weight]
    if mechanism == "laplace":  # the logarithm of the likelihood ratio
        present, absent = (-np.abs(part - signal).sum(1) + np.abs(part).sum(1) for part in seen)
    else:
        present, absent = (part @ signal for part in seen)
    return {
        "epsilon": _proved(present, absent, lambda hit, alarm: np.log(np.maximum(hit - delta, 1e-9) / alarm)),
        "mu": _proved(present, absent, lambda hit, alarm: norm.ppf(hit) - norm.ppf(alarm)),
        "guaranteed": model.sensitivity_ / model.noise_scale_,
    }


def _proved(present, absent, measure, wrong=0.01):
    """A lower bound of a measure of hits and false alarms: the best threshold on one half, judged on the other."""
    half = len(present) // 2
    thresholds = np.quantile(np.r_[present[:half], absent[:half]], np.linspace(0.01, 0.99, 99))

    def bounds(part, thresholds):
        n = half if part.start is None else len(present) - half
        hits, alarms = ((seen[part][:, None] >= thresholds).sum(0) for seen in (present, absent))
        return beta.ppf(wrong / 2, hits, n - hits + 1), beta.ppf(1 - wrong / 2, alarms + 1, n - alarms)

    best = np.nanargmax(measure(*bounds(slice(None, half), thresholds)))
    return float(measure(*bounds(slice(half, None), thresholds[[best]]))[0])


def calibration():
    """How far the scale is above that of the best order, relative, the largest of several budgets."""
    from sklowrank.privacy._accountant import gaussian_scale

    above = []
    for epsilon, delta in ((0.1, 1e-6), (0.5, 1e-6), (1, 1e-6), (1, 1e-5), (4, 1e-9), (8, 1e-6)):
        t = np.linspace(-20, 12, 2_000_001)
        alpha = 1 + np.exp(t)
        order = alpha * np.log1p(-1 / alpha) - t
        rho = ((epsilon + (math.log(delta) - order) / (alpha - 1)) / alpha).max()
        above.append(gaussian_scale(epsilon, delta) * math.sqrt(2 * rho) - 1)
    return {"error": max(above), "least": min(above)}


def fit_time(n_samples, dtype, name):
    """Seconds of 1,024 cosines and sines of rows with 16 columns, summed: by ours, or plainly by torch."""
    import torch

    X = np.random.default_rng(0).normal(size=(n_samples, 16)).astype(dtype)
    if name == "ours":
        model = ours("PrivateKernelDensity", feature_map="rff", n_components=1024)
        model.fit(X[:1000])
        return {"seconds": min(clock(lambda: model.fit(X))[1] for _ in range(4))}
    rows, W = torch.from_numpy(X), torch.randn(16, 1024, dtype=getattr(torch, dtype))

    def plain():
        cosines, sines = torch.zeros(1024), torch.zeros(1024)
        for block in rows.split(256):
            phase = block @ W
            cosines = cosines + torch.cos(phase).sum(0)
            sines = sines + torch.sin(phase).sum(0)
        return cosines, sines

    return {"seconds": min(clock(plain)[1] for _ in range(4))}


def query_time(name):
    """Seconds of 10,000 queries to 1,024 waves of ten classes."""
    import torch

    Y = np.random.default_rng(1).normal(size=(10_000, 16))
    if name == "ours":
        X = np.random.default_rng(0).normal(size=(2000, 16))
        model = ours("PrivateSimilarityClassifier", classes=range(10), n_components=1024)
        model.fit(X, np.arange(2000) % 10)
        model.class_similarities(Y[:10])
        return {"seconds": min(clock(lambda: model.class_similarities(Y))[1] for _ in range(5))}
    rows = torch.from_numpy(Y)
    W, S = torch.randn(16, 1024, dtype=torch.float64), torch.randn(2048, 10, dtype=torch.float64)

    def plain():
        found = []
        for block in rows.split(1000):
            phase = block @ W
            found.append(torch.cos(phase) @ S[:1024] + torch.sin(phase) @ S[1024:])
        return torch.cat(found)

    return {"seconds": min(clock(plain)[1] for _ in range(5))}


# Cases


def plane_density(bench):
    """Plane: 20,000 rows in two columns, mean kernel of bandwidth 0.1 (0.059 on average), five seeds"""
    needs = {(1.0, 1e-6): 2.4e-4, (0.1, 1e-6): 2.0e-3, (1.0, 0.0): 8e-4, (0.1, 0.0): 7.5e-3}
    for (epsilon, delta), need in needs.items():
        if delta:
            bench.measure(f"epsilon={epsilon}, cosine features, delta=0", cosine_features, "plane", epsilon)
        bench.measure(f"epsilon={epsilon}, delta={delta}, ours, random waves", random_waves, "plane", epsilon, delta)
        found = bench.measure(f"epsilon={epsilon}, delta={delta}, ours, grid", grid, "plane", epsilon, delta)
        bench.claim(f"epsilon={epsilon}, delta={delta}: error", found.error, at_most=need)


def digits_density(bench):
    """Digits: 1,500 rows in 64 columns, mean kernel of bandwidth 1.5 (0.152 on average)"""
    bench.measure("epsilon=1, cosine features, delta=0", cosine_features, "digits", 1.0)
    found = bench.measure("epsilon=1, delta=1e-6, ours, 4,096 waves", many_waves, "digits", 1.0, 1e-6)
    bench.claim("error", found.error, at_most=0.0042)
    plain = bench.measure("no noise, 256 independent waves", directions, False)
    better = bench.measure("no noise, 256 waves of ours", directions, True)
    bench.claim("no noise: error over that of independent waves", better.error, plain.error, at_most=0.85)


def distance_sums(bench):
    """Distances: sums of absolute differences to 2,000 rows, epsilon=1"""
    bench.measure("30 columns, tree of counts, delta=0", tree_of_counts, 30, 1)
    for delta, need in ((1e-6, 150), (0.0, 480)):
        found = bench.measure(f"30 columns, delta={delta}, ours", distance_sums_of, 30, delta, 30)
        bench.claim(f"30 columns, delta={delta}: error", found.error, at_most=need)
    bench.measure("one column, tree of counts, delta=0", tree_of_counts, 1, 10)
    found = bench.measure("one column, delta=0, ours", distance_sums_of, 1, 0.0, 60)
    bench.claim("one column, delta=0: error", found.error, at_most=3.6)


def classifier(bench):
    """Classifier: 70 % of the rows to fit, epsilon=1, six seeds; error is the share of wrong classes"""
    for data, need in (("digits", 0.78), ("breast cancer", 0.88), ("made", 0.84)):
        for name in ("KNeighborsClassifier", "LogisticRegression"):
            bench.measure(f"{data}, {name}, not private", not_private, data, name)
        bench.measure(f"{data}, ours without noise", without_noise, data)
        found = bench.measure(f"{data}, ours", by_mean, data)
        bench.measure(f"{data}, ours, class_weighting='sum'", by_sum, data)
        bench.claim(f"{data}: accuracy", found.right, at_least=need)
        if data == "digits":
            pure = bench.measure("digits, ours, linear, delta=0, 40 seeds", by_linear_pure, data)
            bench.claim("digits, linear, delta=0: accuracy", pure.right, at_least=0.43)


def noise(bench):
    """Noise: whether it is what it says"""
    for mechanism in ("gaussian", "laplace"):
        found = bench.measure(f"{mechanism}: spread of 200 sketches", spread, mechanism)
        bench.claim(f"{mechanism}: spread off noise_scale_, relative", found.error, at_most=0.03)
        bench.claim(f"{mechanism}: entries off the lattice", found.off, at_most=0)
        found = bench.measure(f"{mechanism}: four million draws, largest |z|", sampler, mechanism)
        bench.claim(f"{mechanism}: largest |z| against exact probabilities", found.error, at_most=4.5)
    found = bench.measure("Gaussian scale above the best order", calibration)
    bench.claim("Gaussian scale above the best order, relative", found.error, at_most=1e-5)
    bench.claim("Gaussian scale below the best order, relative", -found.least, at_most=0)
    bench.measure("20,480 draws, builtin", draws, "builtin")
    bench.measure("20,480 draws, OpenDP", draws, "opendp", package="opendp")


def audits(bench):
    """Audits: lower bounds of epsilon, and of mu of Gaussian differential privacy, from 8,000 releases on each side"""
    for similarity in ("gaussian", "linear"):
        name = f"{similarity} similarity, Gaussian noise, epsilon=1"
        found = bench.measure(name, audit, similarity, "gaussian", 1.0, 1e-6)
        bench.claim(f"{name}: mu over what is guaranteed", found.mu, found.guaranteed, at_most=1)
        found = bench.measure(f"{name}, half of it", audit, similarity, "gaussian", 1.0, 1e-6, 0.5)
        bench.claim(f"{name}, half of it: mu, above what is guaranteed", found.mu / found.guaranteed, at_least=1)
        bench.claim(f"{name}, half of it: epsilon, which shows nothing", found.epsilon, at_most=1)
        name = f"{similarity} similarity, Laplace noise, epsilon=1"
        found = bench.measure(name, audit, similarity, "laplace", 1.0, 0.0)
        bench.claim(f"{name}: epsilon", found.epsilon, at_most=1)
        found = bench.measure(f"{name}, half of it", audit, similarity, "laplace", 1.0, 0.0, 0.5)
        bench.claim(f"{name}, half of it: epsilon", found.epsilon, at_least=1)


def speed(bench):
    """Speed: 1,024 waves of 16 columns against the same cosines and sines by plain torch in blocks of 256 rows"""
    for dtype in ("float32", "float64"):
        plain = bench.measure(f"1,000,000 rows, {dtype}, torch alone, no noise", fit_time, 1_000_000, dtype, "torch")
        found = bench.measure(f"1,000,000 rows, {dtype}, ours", fit_time, 1_000_000, dtype, "ours")
        bench.claim(f"1,000,000 rows, {dtype}: seconds over torch alone", found.seconds, plain.seconds, at_most=2)
    plain = bench.measure("10,000 queries, ten classes, torch alone", query_time, "torch")
    found = bench.measure("10,000 queries, ten classes, ours", query_time, "ours")
    bench.claim("10,000 queries: seconds over torch alone", found.seconds, plain.seconds, at_most=1.5)


CASES = [plane_density, digits_density, distance_sums, classifier, noise, audits, speed]
