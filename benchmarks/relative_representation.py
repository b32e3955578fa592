"""Relative representations: `RelativeRepresentation` and `StitchedClassifier` against absolute rows and Procrustes.

A classifier (`LogisticRegression(C=10)`) is fitted to digits as one encoder gives them, and is tested on digits as
another one gives them. "Other" is its accuracy there, "own" that for the encoder of the fit. Both encoders have seen
the 100 anchors. Procrustes turns the anchors of the other encoder onto those of the first, and scales them.
"""

import numpy as np
from scipy.linalg import orthogonal_procrustes
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

from benchmarks.harness import clock, peak, quietly

TITLE = "Relative representations"
NETWORKS = ("networks", "networks of equal width")


def digits():
    X, y = load_digits(return_X_y=True)
    return train_test_split(X / 16, y, test_size=0.4, stratify=y, random_state=0)


def rotation():
    return np.linalg.qr(np.random.RandomState(2).randn(64, 64))[0]


def hidden(seed, width, tables, y):
    """Hidden states of a network."""
    net = MLPClassifier((width,), activation="tanh", learning_rate_init=3e-3, max_iter=60, random_state=seed)
    quietly(net.fit, tables[0], y)
    return [np.tanh(rows @ net.coefs_[0] + net.intercepts_[0]) for rows in tables]


def encoded(task):
    """Training and test rows of two encoders, and their classes."""
    A, B, a, b = digits()
    if task == "moved":
        return (A, B), [3.7 * rows @ rotation() + 5 for rows in (A, B)], a, b
    if task == "turned":
        return (A, B), [rows @ rotation() for rows in (A, B)], a, b
    if task in NETWORKS:
        return hidden(0, 64, (A, B), a), hidden(1, 64 if "equal" in task else 128, (A, B), a), a, b
    if task == "unlike":
        return hidden(0, 64, (A, B), a), [rows @ rotation() for rows in (A, B)], a, b
    if task == "widths":
        scores = PCA(30, random_state=0).fit(A)
        return [scores.transform(rows) for rows in (A, B)], [rows @ rotation() + 2 for rows in (A, B)], a, b
    scores, L = PCA(20, random_state=0).fit(A), np.random.RandomState(3).randn(20, 20)  # "any linear map"
    first = [scores.transform(rows) for rows in (A, B)]
    return first, [rows @ L for rows in first], a, b


def anchors_of(n, m=100):
    return np.random.RandomState(1).permutation(n)[:m]


def head():
    return LogisticRegression(C=10, max_iter=3000)


def turned(rows, there, here):
    """Rows of the other encoder after the orthogonal map, scale and shift that bring anchors onto anchors."""
    Z, A = there - there.mean(0), here - here.mean(0)
    return (rows - there.mean(0)) @ orthogonal_procrustes(Z, A)[0] * np.linalg.norm(A) / np.linalg.norm(Z) + here.mean(
        0
    )


def stitched(task, how, m=100, other="same", **settings):
    """Accuracies of one classifier for both encoders."""
    from sklowrank.metric_learning import RelativeRepresentation

    (A, B), (C, D), a, b = encoded(task)
    at = anchors_of(len(A), m)
    if how == "absolute":
        model = head().fit(A, a)
        return _scores(model.score(B, b), model.score(D, b))
    if how == "Procrustes":
        model = head().fit(A, a)
        return _scores(model.score(B, b), model.score(turned(D, C[at], A[at]), b))
    if "anchor_selection" in settings:
        here = RelativeRepresentation(m, random_state=0, **settings).fit(A, a)
        at = here.anchor_indices_
    here = RelativeRepresentation(anchors=at, **settings).fit(A)
    at = {
        "same": at,
        "shuffled": np.random.RandomState(1).permutation(at),
        "drawn": np.random.RandomState(9).permutation(len(A))[: len(at)],
    }[other]
    there = RelativeRepresentation(anchors=at, **settings).fit(C)
    model = quietly(head().fit, here.transform(A), a)
    off = np.abs(here.transform(B) - there.transform(D)).max()
    return _scores(model.score(here.transform(B), b), model.score(there.transform(D), b)) | {"off": float(off)}


def _scores(own, other):
    return {"own": own, "other": other, "error": 1 - other, "remark": f"own {own:.3f}, other {other:.3f}"}


def with_settings(task, m, settings):
    return stitched(task, "relative", m, **settings)


def moved(bench):
    """moved: the other encoder turns, scales and shifts pixels of digits."""
    ours = bench.measure("relative", stitched, "moved", "relative")
    raw = bench.measure("relative, center=False", with_settings, "moved", 100, {"center": False})
    absolute, turn = (bench.measure(how, stitched, "moved", how) for how in ("absolute", "Procrustes"))
    bench.claim("relative rows of both encoders, largest difference", ours.off, at_most=1e-10)
    bench.claim("accuracy for the other encoder", ours.other, at_least=0.95)
    bench.claim("own less other accuracy", abs(ours.own - ours.other), at_most=1e-9)
    bench.claim("absolute rows: accuracy for the other encoder", absolute.other, at_most=0.25)
    bench.claim("without centring: accuracy for the other encoder", raw.other, at_most=0.5)
    bench.claim("Procrustes, which is ahead: accuracy over ours", turn.other - ours.other, at_most=0.03)
    bench.note("the price: own accuracy of absolute and relative rows", f"{absolute.own:.3f}, {ours.own:.3f}")


def networks(bench):
    """networks: hidden layers of two networks with different seeds, of 64 and 128 units, and both of 64."""
    ours = bench.measure("relative, 64 and 128 units", stitched, "networks", "relative")
    bench.measure("relative, center=False, 64 and 128 units", with_settings, "networks", 100, {"center": False})
    bench.claim("64 and 128 units: accuracy for the other network", ours.other, at_least=0.95)
    same, absolute, turn = (
        bench.measure(f"{how}, 64 units", stitched, NETWORKS[1], how) for how in ("relative", "absolute", "Procrustes")
    )
    bench.claim("64 units: accuracy for the other network", same.other, at_least=0.95)
    bench.claim("64 units: absolute rows", absolute.other, at_most=0.4)
    bench.note("64 units: Procrustes, relative", f"{turn.other:.3f}, {same.other:.3f}")
    unlike = bench.measure("relative, 64 units and turned pixels", stitched, "unlike", "relative")
    turn = bench.measure("Procrustes, 64 units and turned pixels", stitched, "unlike", "Procrustes")
    bench.claim("encoders that are not alike: the loss, at least", unlike.own - unlike.other, at_least=0.05)
    bench.note("encoders that are not alike: Procrustes, relative", f"{turn.other:.3f}, {unlike.other:.3f}")


def widths(bench):
    """widths: 30 principal components, and pixels that are turned and shifted."""
    ours = bench.measure("relative", stitched, "widths", "relative")
    raw = bench.measure("relative, center=False", with_settings, "widths", 100, {"center": False})
    bench.claim("accuracy for the other encoder", ours.other, at_least=0.94)
    bench.claim("without centring", raw.other, at_most=0.5)


def anchors(bench):
    """anchors: which, how many, and what happens where they do not match; pixels that are turned."""
    for m in (10, 20, 50, 100, 300):
        bench.measure(f"{m} anchors", stitched, "turned", "relative", m)
    for other, name in (("shuffled", "the same in another order"), ("drawn", "others")):
        wrong = bench.measure(f"100 anchors, {name}", stitched, "turned", "relative", 100, other)
        bench.claim(f"{name}: accuracy for the other encoder", wrong.other, at_most=0.3)
    for how in ("random", "farthest", "kmeans", "stratified"):
        found = bench.measure(f"40 anchors, {how}", with_settings, "turned", 40, {"anchor_selection": how})
        bench.claim(f"40 anchors, {how}: own accuracy", found.own, at_least=0.91)


def similarities(bench):
    """similarities: pixels that are turned, scaled and shifted; and any linear map of 20 principal components."""
    for name in ("cosine", "euclidean", "rbf", "geodesic"):
        found = bench.measure(name, with_settings, "moved", 100, {"similarity": name})
        bench.claim(f"{name}: accuracy for the other encoder", found.other, at_least=0.94)
    plain, white = (
        bench.measure(f"any linear map, whiten={w}", with_settings, "any linear map", 100, {"whiten": w})
        for w in (False, True)
    )
    bench.claim("any linear map, whitened: accuracy for the other encoder", white.other, at_least=0.85)
    bench.claim("any linear map, whitened: over not whitened", white.other - plain.other, at_least=0.1)


def alike(how):
    """The three likenesses of hidden layers of two networks, and of shuffled rows."""
    from sklowrank.metric_learning import relative_distance

    (_, first), (_, second), _, _ = encoded("networks")
    rows = np.random.RandomState(0).permutation(len(first)) if how == "shuffled" else slice(None)
    found = relative_distance(first, second[rows], anchors=np.arange(100))
    return {**found, "remark": ", ".join(f"{name} {value:.3f}" for name, value in found.items())}


def likeness(bench):
    """likeness: `relative_distance` of the hidden layers of two networks, on rows that neither has seen."""
    ours, shuffled = bench.measure("networks", alike, "aligned"), bench.measure("rows shuffled", alike, "shuffled")
    bench.claim("cosine of matching rows", ours.cosine, at_least=0.8)
    bench.claim(
        "reciprocal rank over that of shuffled rows", ours.reciprocal_rank / shuffled.reciprocal_rank, at_least=5
    )
    bench.claim("shared neighbours over those of shuffled rows", ours.jaccard / shuffled.jaccard, at_least=5)


def adapted(how):
    """Accuracies of a classifier that is adapted to other encoders by the anchors."""
    from sklowrank.metric_learning import RelativeRepresentation, StitchedClassifier

    (A, B), (C, D), a, b = encoded("widths" if how == "widths" else "moved")
    model = StitchedClassifier(head(), representation=RelativeRepresentation(anchors=anchors_of(len(A)))).fit(A, a)
    return _scores(model.score(B, b), model.adapt(C[model.anchor_indices_]).score(D, b))


def adaptation(bench):
    """adaptation: `StitchedClassifier`, adapted by 100 anchors without labels."""
    same, narrow = (bench.measure(f"StitchedClassifier, {how}", adapted, how) for how in ("moved", "widths"))
    bench.claim("moved: own less other accuracy", abs(same.own - same.other), at_most=1e-9)
    bench.claim("widths: accuracy for the other encoder", narrow.other, at_least=0.94)


def timed(how, n=100_000, d=128, m=256):
    """Seconds of a call on a large table."""
    from sklowrank.metric_learning import RelativeRepresentation

    X = np.random.default_rng(0).normal(size=(n, d)).astype(np.float32)
    if how.startswith("fit"):
        model = RelativeRepresentation(m, anchor_selection=how.split()[1], random_state=0)
        return {"seconds": clock(lambda: model.fit(X, np.arange(n) % 10), repeats=1)[1]}
    name = "cosine" if how == "product" else how
    model = RelativeRepresentation(m, similarity=name, random_state=0).fit(X)
    before = peak()
    call = (lambda: X @ model.anchors_.T) if how == "product" else (lambda: model.transform(X))
    seconds = clock(call, repeats=3)[1]
    return {"seconds": seconds, "remark": f"{peak() - before:.0f} MB added"}


def speed(bench):
    """speed: 100,000 rows of 128 columns in float32, 256 anchors. The answer takes 102 MB."""
    product = bench.measure("bare matrix product", timed, "product")
    found = {name: bench.measure(name, timed, name) for name in ("cosine", "euclidean", "rbf", "geodesic")}
    bench.claim("cosine: seconds over those of the product", found["cosine"].seconds, product.seconds, at_most=6)
    for how in ("random", "farthest", "kmeans"):
        bench.measure(f"fit, {how}", timed, f"fit {how}")


CASES = [moved, networks, widths, anchors, similarities, likeness, adaptation, speed]
