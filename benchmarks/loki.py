"""Fréchet means of class probabilities: `LokiClassifier` against arg-max and other rules for the same probabilities.

The error is the mean squared distance between predicted and true label. All rules of a row use one fitted model, with
its default probabilities; nothing is chosen on test rows. "Plain product" is the rule in two lines of numpy.
"""

import time
from itertools import combinations

import numpy as np
from scipy.optimize import linprog
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_diabetes, load_digits, load_iris, load_wine
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import train_test_split
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.harness import clock, peak, quietly

TITLE = "Fréchet means of class probabilities"
SEEN = [0, 3, 6, 9, 12, 15, 18, 19]


class Given(ClassifierMixin, BaseEstimator):
    """Rows are the probabilities themselves."""

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        return self

    def predict_proba(self, X):
        return X


def given(observed, **params):
    from sklowrank.multiclass import LokiClassifier

    return quietly(LokiClassifier(Given(), **params).fit, np.eye(len(observed)), np.asarray(observed))


def loki(model, *args, **params):
    """Our rule on top of a fitted model."""
    from sklowrank.multiclass import LokiClassifier

    return LokiClassifier(FrozenEstimator(model), *args, **params).fit([[0.0]], model.classes_[:1])


def scaled(model):
    return make_pipeline(StandardScaler(), model)


# Bins


def bins(seed, n_bins=20, seen=SEEN):
    """Diabetes cut into bins of equal width: training rows of some bins, and test rows of all."""
    X, y = load_diabetes(return_X_y=True)
    y = np.clip(np.digitize(y, np.linspace(y.min(), y.max(), n_bins + 1)) - 1, 0, n_bins - 1)
    X, X_test, y, y_test = train_test_split(X, y, test_size=0.3, random_state=seed)
    rows = np.isin(y, seen)
    return X[rows], y[rows], X_test, y_test


def binned(rule, n_bins, seen, n_seeds):
    """Errors and accuracies of one rule, means over random splits."""
    found = []
    for seed in range(n_seeds):
        X, y, X_test, y_test = bins(seed, n_bins, seen)
        base = GaussianNB() if "Bayes" in rule else LogisticRegression(max_iter=2000)
        base = CalibratedClassifierCV(base, method="temperature", cv=3) if "calibrated" in rule else base
        model = quietly(scaled(base).fit, X, y)
        if rule == "Ridge, rounded":
            guess = np.clip(np.rint(scaled(Ridge()).fit(X, y).predict(X_test)), 0, n_bins - 1).astype(int)
        elif rule.startswith("arg-max"):
            guess = model.predict(X_test)
        elif rule == "expected bin, rounded":
            guess = np.rint(model.predict_proba(X_test) @ model.classes_).astype(int)
        else:
            labels = None if "observed" in rule else np.arange(n_bins)
            guess = loki(model, "numeric", label_space=labels).predict(X_test)
        unseen = ~np.isin(y_test, y)
        right = guess == y_test
        found.append([np.mean((guess - y_test) ** 2), right.mean(), len(set(guess) - set(y)), right[unseen].sum()])
        found[-1] += [unseen.sum(), np.mean(np.abs(guess - y_test))]
    error, accuracy, labels, hits, n, absolute = np.mean(found, axis=0)
    hits = hits / n if n else np.nan
    remark = f"accuracy {accuracy:.3f}, of unseen bins {hits:.3f}, mean distance {absolute:.2f}"
    return {"error": error, "accuracy": accuracy, "labels": labels, "hits": hits, "remark": remark}


def unseen_bins(bench):
    """unseen bins: diabetes in 20 bins, 8 of which have training rows; logistic regression, five random splits."""
    names = ("arg-max", "LOKI, observed bins", "LOKI", "Ridge, rounded")
    argmax, observed, ours, ridge = (bench.measure(name, binned, name, 20, SEEN, 5) for name in names)
    bench.claim("squared distance over that of arg-max", ours.error, argmax.error, at_most=0.80)
    bench.claim("over the rule on observed bins", ours.error, observed.error, at_most=0.97)
    bench.claim("unseen bins that are predicted", ours.labels, at_least=5)
    bench.claim("accuracy on rows of unseen bins; arg-max has 0", ours.hits, at_least=0.04)
    mean = bench.measure("expected bin, rounded", binned, "expected bin, rounded", 20, SEEN, 5)
    bench.note(
        "over LOKI, Ridge and the expected bin", f"{ridge.error / ours.error:.3f}, {mean.error / ours.error:.3f}"
    )


def seen_bins(bench):
    """all bins seen: diabetes in 8 bins, all with training rows; 20 random splits."""
    names = ("arg-max", "LOKI", "Ridge, rounded")
    argmax, ours, ridge = (bench.measure(name, binned, name, 8, range(8), 20) for name in names)
    bench.claim("squared distance over that of arg-max", ours.error, argmax.error, at_most=0.85)
    bench.note("accuracy", f"LOKI {ours.accuracy:.3f}, arg-max {argmax.accuracy:.3f}, Ridge {ridge.accuracy:.3f}")


def calibration(bench):
    """calibration: the same bins, a naive Bayes model, which is too sure of itself; 20 random splits."""
    names = ("arg-max of naive Bayes", "LOKI, naive Bayes", "LOKI, naive Bayes, calibrated")
    argmax, raw, calibrated = (bench.measure(name, binned, name, 8, range(8), 20) for name in names)
    bench.claim("squared distance over that of arg-max", raw.error, argmax.error, at_most=1.0)
    bench.claim("calibrated over raw probabilities", calibrated.error, raw.error, at_most=0.95)


# Trees


def balanced(seed, depth=7, width=16):
    """Rows at the leaves of a balanced tree, its edges, and a quarter of its leaves, which have training rows."""
    rng = np.random.default_rng(seed)
    n = 2 ** (depth + 1) - 1
    mean, edges = np.zeros((n, width)), [((c - 1) // 2, c) for c in range(1, n)]
    for parent, child in edges:
        mean[child] = mean[parent] + rng.normal(size=width) * 0.8 ** np.floor(np.log2(child + 1))
    leaves = np.arange(2**depth - 1, n)
    y = np.repeat(leaves, 60)
    X = mean[y] + 0.5 * rng.normal(size=(len(y), width))
    return X, y, edges, rng.choice(leaves, len(leaves) // 4, replace=False), rng.random(len(y)) < 0.3


def path_lengths(n, edges):
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import shortest_path

    a, b = np.transpose(edges)
    return shortest_path(csr_array((np.ones(len(a)), (a, b)), shape=(n, n)), directed=False)


def on_a_tree(rule, depth=7):
    """Errors on all leaves, accuracy on those with training rows, and unseen leaves that are predicted; three seeds.

    Labels are text where probabilities are calibrated: scikit-learn 1.9 takes integers for positions of classes there.
    """
    found = []
    for seed in range(3):
        X, y, edges, seen, test = balanced(seed, depth)
        rows, D = np.isin(y, seen) & ~test, path_lengths(len(edges) + 1, edges)
        base = KNeighborsClassifier(5) if "neighbours" in rule else LogisticRegression(max_iter=1000)
        base = CalibratedClassifierCV(base, method="temperature", cv=3) if "calibrated" in rule else base
        text = np.char.mod("%03d", y) if "calibrated" in rule else y
        edges = [tuple(np.char.mod("%03d", edge).tolist()) for edge in edges] if "calibrated" in rule else edges
        base.fit(X[rows], text[rows])
        if rule.startswith("LOKI"):
            nodes = "leaves" if "leaves" in rule else "all"
            base = loki(base, "tree", label_tree=edges, tree_nodes=nodes)
        guess, known = base.predict(X[test]).astype(int), np.isin(y[test], seen)
        error = np.mean(D[guess, y[test]] ** 2)
        found.append([error, np.mean(guess[known] == y[test][known]), np.mean(D[guess, y[test]][known] ** 2)])
        found[-1].append(len((set(guess) & set(y)) - set(seen)))
    error, accuracy, of_seen, strange = np.mean(found, axis=0)
    remark = f"rows of seen leaves: accuracy {accuracy:.3f}, squared distance {of_seen:.2f}"
    return {"error": error, "accuracy": accuracy, "of_seen": of_seen, "strange": strange, "remark": remark}


def unseen_leaves(bench):
    """unseen leaves: a balanced tree of 128 leaves, 32 of them with training rows; three seeds."""
    names = ("arg-max", "LOKI, all nodes", "LOKI, leaves", "5 neighbours", "LOKI, all nodes, 5 neighbours")
    argmax, ours, leaves, near, ours_near = (bench.measure(name, on_a_tree, name) for name in names)
    calibrated = bench.measure("LOKI, all nodes, calibrated", on_a_tree, "LOKI, all nodes, calibrated")
    bench.claim("squared distance over that of arg-max", ours.error, argmax.error, at_most=0.60)
    bench.claim("neighbours: over that of arg-max", ours_near.error, near.error, at_most=0.95)
    bench.claim("leaves as labels: over that of arg-max", leaves.error, argmax.error, at_most=1.0)
    bench.claim("leaves as labels: unseen leaves that are predicted", leaves.strange, at_most=0)
    bench.claim("calibrated, seen leaves: over that of arg-max", calibrated.of_seen, argmax.of_seen, at_most=0.9)
    seen = f"squared distance {ours.of_seen:.2f}, {argmax.of_seen:.2f}"
    bench.note("rows of seen leaves, LOKI and arg-max", f"accuracy {ours.accuracy:.3f}, {argmax.accuracy:.3f}; {seen}")


def grown(how, n_picks=10):
    """Nodes that can be predicted after each pick of a class, least over three trees of 100 nodes less the other's."""
    found = []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        edges = [(int(rng.integers(0, c)), c) for c in range(1, 100)]
        D, start = path_lengths(100, edges), rng.choice(100, 4, replace=False)
        if how == "greedy":
            orders = [given(np.sort(start), metric="tree", label_tree=edges).next_class(n_picks)]
        else:
            orders = [rng.permutation(np.setdiff1d(np.arange(100), start))[:n_picks] for _ in range(50)]
        sizes = [[_between(D, [*start, *order[: i + 1]]) for i in range(n_picks)] for order in orders]
        found.append(np.mean(sizes, axis=0))
    remark = "nodes after 1, 5 and 10 picks, means: " + ", ".join(f"{np.mean(found, axis=0)[i]:.1f}" for i in (0, 4, 9))
    return {f"size{seed}_{i}": size for seed, row in enumerate(found) for i, size in enumerate(row)} | {
        "remark": remark
    }


def _between(D, nodes):
    """Number of nodes on paths between some."""
    return np.any([np.abs(D[i] + D[j] - D[i, j]) < 1e-9 for i, j in combinations(nodes, 2)], axis=0).sum()


def learnt(how, n_picks=12):
    """Error on all leaves of a balanced tree after rows of some more leaves came, which were picked or drawn."""
    from sklowrank.multiclass import LokiClassifier

    errors = []
    for seed in range(3):
        X, y, edges, seen, test = balanced(seed, depth=6)
        seen, leaves, rng = seen[:6], np.unique(y), np.random.default_rng(seed)
        picks = given(np.sort(seen), metric="tree", label_tree=edges).next_class(n_picks, candidates=leaves)
        orders = (
            [picks] if how == "greedy" else [rng.permutation(np.setdiff1d(leaves, seen))[:n_picks] for _ in range(5)]
        )
        for order in orders:
            rows = np.isin(y, [*seen, *order]) & ~test
            model = LokiClassifier(LogisticRegression(max_iter=1000), "tree", label_tree=edges).fit(X[rows], y[rows])
            errors.append((model.score_distance(X[test], y[test]), seed))
    return {"error": np.mean([np.mean([e for e, s in errors if s == seed]) for seed in range(3)])}


def next_classes(bench):
    """next class: which classes to label next, by the greedy rule and drawn at random (mean of 50 draws)."""
    ours, chance = bench.measure("next_class", grown, "greedy"), bench.measure("random", grown, "random")
    ahead = [ours[key] - chance[key] for key in ours if key.startswith("size")]
    bench.claim("nodes ahead of random picks, worst of ten picks and three trees", min(ahead), at_least=1.5)
    ours, chance = bench.measure("LOKI, 12 picks", learnt, "greedy"), bench.measure("LOKI, 12 random", learnt, "random")
    bench.note(
        "squared distance on a tree of 64 leaves with rows of 6 + 12", f"{ours.error:.1f}, random {chance.error:.1f}"
    )


# The rule itself


def agreement():
    """Rows on which the rule is not the definition, by kind of label space."""
    rng = np.random.default_rng(0)
    wrong = 0
    for load in (load_iris, load_wine, load_digits):
        X, y = load(return_X_y=True)
        model = scaled(LogisticRegression(max_iter=2000)).fit(X, y)
        wrong += np.sum(loki(model, "discrete").predict(X) != model.predict(X))
    E, P = rng.normal(size=(300, 5)), rng.dirichlet(np.full(40, 0.2), 2000)
    D, seen = np.linalg.norm(E[:, None] - E, axis=2), np.sort(rng.choice(300, 40, replace=False))
    space = {"label_space": np.arange(300)}
    for power in (1.0, 2.0, 3.0):
        expected = (P @ D[seen] ** power).argmin(1)
        for kind in ({"metric": "embedding", "label_embeddings": E}, {"metric": "precomputed", "distances": D}):
            wrong += np.sum(given(seen, power=power, **kind, **space).predict(P) != expected)
    model, A = given(seen, metric="embedding", label_embeddings=E, **space), D[seen] ** 2
    inside, seconds = clock(lambda: np.isin(np.arange(300), model.locus("exact")), repeats=1)
    start = time.perf_counter()
    for v in range(300):
        limits = (A[:, [v]] - np.delete(A, v, 1)).T
        wrong += (linprog(np.zeros(40), limits, np.zeros(299), np.ones((1, 40)), [1.0]).status == 0) != inside[v]
    return {"wrong": wrong, "seconds": seconds, "programs": time.perf_counter() - start}


def equivalence(bench):
    """equivalence: arg-max for equal distances on iris, wine and digits; points and tables of 300 labels; the locus."""
    found = bench.measure("LokiClassifier", agreement)
    bench.claim("rows and labels that differ from the definition", found.wrong, at_most=0)
    bench.claim("exact locus of 300 labels, linear programs over ours", found.seconds, found.programs, at_least=2)


# Scale


def predicted(how, kind, n_labels, n_rows, n_observed):
    """Seconds of predictions, and memory that they added."""
    import sklowrank.multiclass  # noqa: F401  before memory is measured

    rng = np.random.default_rng(0)
    seen = np.sort(rng.choice(n_labels, n_observed, replace=False))
    P = rng.dirichlet(np.full(n_observed, 0.2), n_rows)
    if kind == "numeric":
        params = {"metric": "numeric", "label_space": np.arange(n_labels)}
    elif kind == "tree":
        edges = [(int(rng.integers(max(0, c // 2 - 50), c // 2 + 1)) if c > 1 else 0, c) for c in range(1, n_labels)]
        params = {"metric": "tree", "label_tree": edges}
    else:
        E = rng.normal(size=(n_labels, int(kind)))
        params = {"metric": "embedding", "label_embeddings": E, "label_space": np.arange(n_labels)}
    before = peak()
    if how == "plain product":
        E = np.arange(n_labels)[:, None] if kind == "numeric" else E

        def call():
            A = (E[seen] ** 2).sum(1)[:, None] + (E**2).sum(1) - 2 * E[seen] @ E.T
            return np.concatenate([(p @ A).argmin(1) for p in np.array_split(P, -(-n_rows * n_labels // 2_000_000))])
    else:
        model = given(seen, **params)

        def call():
            return model.predict(P)

    found, seconds = clock(call, budget=5.0, repeats=3)
    added = peak() - before
    return {"seconds": seconds, "added": added, "sum": int(found.sum()), "remark": f"{added:.0f} MB added"}


def scale(bench):
    """scale: labels and rows; 100 observed labels. A label by label table of 20,000 labels would take 3,200 MB."""
    ours, plain = (
        bench.measure(f"{how}, 20,000 points in 64 dimensions, 1,000 rows", predicted, how, "64", 20_000, 1000, 100)
        for how in ("LOKI", "plain product")
    )
    bench.claim("64 dimensions: time over that of the plain product", ours.seconds, plain.seconds, at_most=2.0)
    bench.claim("64 dimensions: MB added", ours.added, at_most=800)
    bench.claim("64 dimensions: the same labels", abs(ours.sum - plain.sum), at_most=0)
    ours, plain = (
        bench.measure(f"{how}, 100,000 points in 2 dimensions, 1,000 rows", predicted, how, "2", 100_000, 1000, 100)
        for how in ("LOKI", "plain product")
    )
    bench.claim("2 dimensions: times faster than the plain product", ours.seconds, plain.seconds, at_least=10)
    times = {}
    for n_labels, n_rows in ((10_000, 10_000), (1_000_000, 10_000), (10_000, 1_000_000)):
        name = f"LOKI, {n_labels:,} numeric labels, {n_rows:,} rows"
        times[n_labels, n_rows] = bench.measure(name, predicted, "LOKI", "numeric", n_labels, n_rows, 20).seconds
    classes = times[1_000_000, 10_000] / times[10_000, 10_000]
    bench.note("numeric: a hundred times the labels, a hundred times the rows",
               f"{classes:.1f} and {times[10_000, 1_000_000] / times[10_000, 10_000]:.0f} times the time")  # fmt: skip
    bench.claim("numeric: seconds of a million rows", times[10_000, 1_000_000], at_most=10)
    for n_observed in (100, 1000):
        name = f"LOKI, a tree of 100,000 nodes, 1,000 rows, {n_observed:,} observed"
        bench.measure(name, predicted, "LOKI", "tree", 100_000, 1000, n_observed)
    bench.measure("LOKI, 300,000 points in 64 dimensions, 1,000 rows", predicted, "LOKI", "64", 300_000, 1000, 100)


def overhead(how):
    """Seconds of predictions of 10 digits with logistic regression, for 100,000 rows."""
    X, y = load_digits(return_X_y=True)
    model = scaled(LogisticRegression(max_iter=2000)).fit(X, y)
    X = np.tile(X, (56, 1))
    model = loki(model, "ordinal") if how == "LOKI" else model
    return {"seconds": clock(lambda: model.predict(X), repeats=3)[1]}


def speed(bench):
    """speed: predictions of 100,000 rows of digits by logistic regression, with and without the rule."""
    ours, base = bench.measure("LOKI", overhead, "LOKI"), bench.measure("arg-max", overhead, "arg-max")
    bench.claim("time over that of the model's own predict", ours.seconds, base.seconds, at_most=3.0)


CASES = [unseen_bins, seen_bins, calibration, unseen_leaves, next_classes, equivalence, scale, speed]
