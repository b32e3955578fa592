"""Streams of identifiers: `OnlineEmbeddingClassifier`, which learns a vector for each identifier in one pass.

Every stream is scored before it is learned: a batch is predicted, then learned, and the area under the ROC curve is
that of all rows but the first fifth. Seconds are of processor time, which does not depend on what else a machine does,
of the whole pass, predictions included; Vowpal Wabbit and river, whose interface is one row at a time, predict and
learn row by row. The generated stream has 20,000 users and 5,000 items, both drawn by Zipf's law, labels by biases and
a product of factors, and items that drift in 40 steps; identifiers are random integers of 60 bits. Settings of ours are
the defaults, but for those that a case names. MovieLens-100k, in the order of its time stamps and with a rating of 4 or
5 as the label, is read from the folder that `SKLOWRANK_DATA` names.
"""

import pickle
import tempfile
import time
from pathlib import Path

import numpy as np
from sklearn.feature_extraction import FeatureHasher
from sklearn.linear_model import SGDClassifier
from sklearn.metrics import roc_auc_score

from benchmarks import data
from benchmarks.harness import peak

TITLE = "Streams of identifiers"
RIVER_ROWS = 5_000  # one model of river takes minutes for the whole stream


# Streams


def movielens(n_rows=None):
    """Users and films, and whether they liked them, in the order of time."""
    ratings = np.loadtxt(data.folder("movielens_100k") / "u.data", dtype=np.int64)
    ratings = ratings[np.argsort(ratings[:, 3], kind="stable")][:n_rows]
    return ratings[:, :2], (ratings[:, 2] >= 4).astype(int)


def drifting(seed=0, n_rows=200_000, n_users=20_000, n_items=5_000):
    """Users and items by Zipf's law, with biases, factors, and items that drift."""
    g = np.random.default_rng(seed)

    def zipf(n):
        weight = np.arange(1, n + 1) ** -1.05
        return g.choice(n, n_rows, p=weight / weight.sum())

    u, i = zipf(n_users), zipf(n_items)
    U, V = g.normal(size=(n_users, 4)), g.normal(size=(n_items, 4))
    of_user, of_item = 0.7 * g.normal(size=n_users), g.normal(size=n_items)
    y = np.empty(n_rows, int)
    for rows in np.array_split(np.arange(n_rows), 40):
        z = of_user[u[rows]] + of_item[i[rows]] + 0.8 * (U[u[rows]] * V[i[rows]]).sum(1)
        y[rows] = g.random(len(rows)) < 1 / (1 + np.exp(-z))
        of_item = 0.9 * of_item + np.sqrt(0.19) * g.normal(size=n_items)
        V = 0.95 * V + np.sqrt(0.0975) * g.normal(size=(n_items, 4))
    return np.column_stack([g.integers(0, 2**60, n_users)[u], g.integers(0, 2**60, n_items)[i]]), y


def with_strangers(share=0.3, n_rows=100_000):
    """The generated stream in which a share of the rows is of users that come once."""
    X, y = drifting(0, n_rows)
    once = np.random.default_rng(9).random(n_rows) < share
    X[once, 0] = np.random.default_rng(10).integers(2**61, 2**62, once.sum())
    return X, y


STREAMS = {"MovieLens": movielens, "generated": drifting, "strangers": with_strangers}


# Methods: each has `decision_function` and `partial_fit`


def ours(**settings):
    from sklowrank.recommend import OnlineEmbeddingClassifier

    return OnlineEmbeddingClassifier(**{"random_state": 0, **settings})


class Hashed:
    """FeatureHasher and SGDClassifier."""

    def __init__(self, bits=20):
        self.hasher = FeatureHasher(2**bits, input_type="string")
        self.model = SGDClassifier(loss="log_loss", learning_rate="constant", eta0=0.2, alpha=1e-6)

    def encoded(self, X):
        return self.hasher.transform([[f"{j}={v}" for j, v in enumerate(row)] for row in X])

    def decision_function(self, X):
        return self.model.decision_function(self.encoded(X))

    def partial_fit(self, X, y, classes):
        self.model.partial_fit(self.encoded(X), y, classes=classes)


def make(method, settings):
    return Hashed(**settings) if method == "hashed" else ours(**settings)


def score(y, scores):
    skipped = len(y) // 5
    return roc_auc_score(y[skipped:], scores[skipped:])


def progressive(model, X, y, batch):
    """Predict each batch, then learn it; return the scores and the seconds."""
    scores, start = np.zeros(len(y)), time.process_time()
    for a in range(0, len(y), batch):
        rows = slice(a, a + batch)
        if a:
            scores[rows] = model.decision_function(X[rows])
        model.partial_fit(X[rows], y[rows], classes=[0, 1])
    return scores, time.process_time() - start


# Measured functions: each runs in a fresh process


def pass_over(stream, method, batch, settings, n_rows=None):
    """One pass over a stream in batches."""
    X, y = STREAMS[stream]() if n_rows is None else STREAMS[stream](n_rows=n_rows)
    model = make(method, settings)
    scores, seconds = progressive(model, X, y, batch)
    rows = getattr(model, "n_ids_", np.nan)
    remark = f"AUC {score(y, scores):.4f}, {len(y) / seconds:,.0f} rows a second"
    remark += f", {rows:,} rows of identifiers" if rows == rows else ""
    figures = {"auc": score(y, scores), "seconds": seconds, "rate": len(y) / seconds, "ids": rows}
    return {"error": 1 - figures["auc"], "remark": remark, **figures}


def by_vowpal_wabbit(stream, arguments, n_rows=None):
    from vowpalwabbit import Workspace

    X, y = STREAMS[stream]() if n_rows is None else STREAMS[stream](n_rows=n_rows)
    model, scores = Workspace(f"--loss_function logistic --quiet {arguments}"), np.zeros(len(y))
    start = time.process_time()
    for row, ((user, item), label) in enumerate(zip(X.tolist(), y.tolist())):
        example = model.parse(f"{2 * label - 1} |u {user} |i {item}")
        model.learn(example)
        scores[row] = example.get_simplelabel_prediction()  # made before it was learned
        model.finish_example(example)
    seconds = time.process_time() - start
    remark = f"AUC {score(y, scores):.4f}, {len(y) / seconds:,.0f} rows a second, one by one"
    return {"error": 1 - score(y, scores), "auc": score(y, scores), "seconds": seconds, "remark": remark}


def by_river(kind, n_rows):
    from river import compose, facto, linear_model, optim, preprocessing

    X, y = movielens(n_rows)
    if kind == "linear":
        model = preprocessing.OneHotEncoder() | linear_model.LogisticRegression(optim.AdaGrad(0.1))
    else:
        model = compose.FuncTransformer(dict) | facto.FMClassifier(n_factors=8, seed=0)
    scores, start = np.zeros(n_rows), time.process_time()
    for row, ((user, item), label) in enumerate(zip(X.tolist(), y.tolist())):
        x = {"user": str(user), "item": str(item)}
        scores[row] = model.predict_proba_one(x).get(True, 0.5)
        model.learn_one(x, bool(label))
    seconds = time.process_time() - start
    remark = f"AUC {score(y, scores):.4f}, {n_rows / seconds:,.0f} rows a second, one by one"
    return {"error": 1 - score(y, scores), "auc": score(y, scores), "seconds": seconds, "remark": remark}


def admitted_by_chance(min_count):
    """Share of 20,000 identifiers that have a row after they came min_count times."""
    ids = np.tile(np.arange(20_000), min_count)[:, None]
    model = ours(min_count=min_count, admission="probabilistic", batch_size=1000).partial_fit(ids, ids[:, 0] % 2)
    return {"share": model.n_ids_ / 20_000, "remark": f"{model.n_ids_ / 20_000:.3f} admitted"}


def throughput(method, settings, n_columns=2, n_rows=300_000, batch=1024):
    """Rows a second of a pass in batches over users and items, or over more columns of 1,000 to 50,000 values."""
    if n_columns == 2:
        X, y = drifting(2, n_rows, 100_000, 30_000)
    else:
        g = np.random.default_rng(0)
        X = np.column_stack([g.integers(0, int(size), n_rows) for size in np.geomspace(1e3, 5e4, n_columns)])
        y = g.integers(0, 2, n_rows)
    _, seconds = progressive(make(method, settings), X, y, batch)
    return {"seconds": seconds, "rate": n_rows / seconds, "remark": f"{n_rows / seconds:,.0f} rows a second"}


def step(size):
    """Seconds of a step of 256 rows where the table has `size` live rows; the median of 200."""
    model, g = ours(batch_size=256), np.random.default_rng(1)
    model.partial_fit(np.arange(size)[:, None], np.arange(size) % 2)
    times = []
    for rows in g.integers(0, size, (200, 256, 1)):
        start = time.process_time()
        model.partial_fit(rows, rows[:, 0] % 2)
        times.append(time.process_time() - start)
    return {"seconds": np.median(times), "remark": f"{1e3 * np.median(times):.2f} ms a step"}


def new_identifiers(how, n=500_000):
    """Seconds in which so many new identifiers get their rows, all congruent modulo 2**20."""
    ids = np.random.default_rng(0).permutation(n) * 2**20
    if how == "dict":
        start, table = time.process_time(), {}
        for value in ids.tolist():
            table.setdefault(value, len(table))
        return {"seconds": time.process_time() - start, "remark": "filled alone, nothing is learned"}
    model = ours(n_components=0, batch_size=100_000)
    start = time.process_time()
    model.partial_fit(ids[:, None], np.arange(n) % 2)
    seconds = time.process_time() - start
    distinct = len(np.unique(model.rows_of(ids[:, None])))
    return {"seconds": seconds, "distinct": distinct, "remark": f"{distinct:,} distinct rows"}


def once_only(settings, n=2_000_000, batch=1024):
    """Megabytes that a pass over identifiers adds of which none comes twice."""
    ids = np.random.default_rng(0).integers(-(2**63), 2**63 - 1, n)
    model = ours(**settings)
    model.partial_fit(ids[:batch, None], np.arange(batch) % 2)
    before, start = peak(), time.process_time()
    for a in range(batch, n, batch):
        rows = ids[a : a + batch, None]
        model.partial_fit(rows, rows[:, 0] % 2)
    seconds, added = time.process_time() - start, peak() - before
    remark = f"{added:.0f} MB added, {model.n_ids_:,} rows of identifiers, {n / seconds:,.0f} rows a second"
    return {"seconds": seconds, "added": added, "ids": model.n_ids_, "remark": remark}


def saved(n_rows=200_000):
    """Seconds and megabytes of a snapshot, a pickle and a delta of the last tenth; what differs after each."""
    X, y = drifting(2, n_rows, 100_000, 30_000)
    model = ours(batch_size=1024)
    cut, half = int(0.9 * n_rows), n_rows // 2
    model.partial_fit(X[:half], y[:half], classes=[0, 1])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model"
        start = time.perf_counter()
        model.save_snapshot(path)
        write = time.perf_counter() - start
        start = time.perf_counter()
        other = type(model).load_snapshot(path)
        read = time.perf_counter() - start
        size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) / 1e6
    for each in (model, other):
        each.partial_fit(X[half:cut], y[half:cut])
    restored = np.abs(other.predict_proba(X) - model.predict_proba(X)).max()
    version = model.version_
    model.partial_fit(X[cut:], y[cut:])
    delta = model.get_delta(version)
    other.apply_delta(delta)
    replica = np.abs(other.predict_proba(X) - model.predict_proba(X)).max()
    small = len(pickle.dumps(delta)) / 1e6
    remark = f"{model.n_ids_:,} rows; snapshot {size:.1f} MB, written in {write:.2f} s, read in {read:.2f} s; delta of "
    remark += f"the last {n_rows - cut:,} rows of the stream {small:.1f} MB"
    return {"seconds": write, "restored": restored, "replica": replica, "size": size, "delta": small, "remark": remark}


# Cases


def quality(bench):
    """Quality on MovieLens: 100,000 ratings in the order of time; batches as named"""
    if why := data.missing("movielens_100k"):
        return bench.skip(why)
    fm = bench.measure("ours, batches of 32", pass_over, "MovieLens", "ours", 32, {})
    small = bench.measure("ours, batches of 8", pass_over, "MovieLens", "ours", 8, {"batch_size": 8})
    bench.measure("ours, linear, batches of 32", pass_over, "MovieLens", "ours", 32, {"interaction": "linear"})
    deep = {"interaction": "deepfm"}
    bench.measure("ours, deepfm, batches of 32", pass_over, "MovieLens", "ours", 32, deep)
    slow = {"batch_size": 256, "learning_rate": 0.05}
    bench.measure("ours, batches of 256, learning_rate=0.05", pass_over, "MovieLens", "ours", 256, slow)
    hashed = bench.measure("FeatureHasher and SGDClassifier, batches of 32", pass_over, "MovieLens", "hashed", 32, {})
    peer = {"package": "vowpalwabbit"}
    linear = bench.measure("Vowpal Wabbit", by_vowpal_wabbit, "MovieLens", "-b 18", **peer)
    pairs = bench.measure("Vowpal Wabbit, -q ui", by_vowpal_wabbit, "MovieLens", "-q ui -b 22", **peer)
    part = f"first {RIVER_ROWS:,} rows"
    bench.measure(f"river, LogisticRegression, {part}", by_river, "linear", RIVER_ROWS, package="river")
    bench.measure(f"river, FMClassifier, {part}", by_river, "fm", RIVER_ROWS, package="river")
    bench.measure(f"ours, batches of 8, {part}", pass_over, "MovieLens", "ours", 8, {"batch_size": 8}, RIVER_ROWS)
    bench.claim("AUC, batches of 32", fm.auc, at_least=0.742)
    bench.claim("AUC, batches of 32, above the hashed model", fm.auc - hashed.auc, at_least=-0.001)
    bench.claim("seconds against the hashed model", fm.seconds, hashed.seconds, at_least=1)
    bench.claim(
        "AUC, batches of 8, above the better of Vowpal Wabbit", small.auc - max(linear.auc, pairs.auc), at_least=0
    )
    bench.note(
        "Vowpal Wabbit against ours in batches of 32",
        f"{fm.seconds / linear.seconds:.1f} times as fast, AUC higher by {linear.auc - fm.auc:.3f}",
    )


def drift(bench):
    """Quality under drift: the generated stream of 200,000 rows; batches of 32"""
    fm = bench.measure("ours", pass_over, "generated", "ours", 32, {})
    bench.measure("ours, linear", pass_over, "generated", "ours", 32, {"interaction": "linear"})
    hashed = bench.measure("FeatureHasher and SGDClassifier", pass_over, "generated", "hashed", 32, {})
    peer = {"package": "vowpalwabbit"}
    linear = bench.measure("Vowpal Wabbit", by_vowpal_wabbit, "generated", "-b 18", **peer)
    pairs = bench.measure("Vowpal Wabbit, -q ui", by_vowpal_wabbit, "generated", "-q ui -b 22", **peer)
    bench.claim("AUC", fm.auc, at_least=0.715)
    bench.claim("AUC above the hashed model", fm.auc - hashed.auc, at_least=0.05)
    bench.claim("AUC above the better of Vowpal Wabbit", fm.auc - max(linear.auc, pairs.auc), at_least=0.02)


def collisions(bench):
    """Collisions: MovieLens, batches of 256, learning_rate=0.05; a table without collisions, and the hash trick"""
    if why := data.missing("movielens_100k"):
        return bench.skip(why)
    settings = {"batch_size": 256, "learning_rate": 0.05}
    found = [bench.measure("cuckoo", pass_over, "MovieLens", "ours", 256, settings)]
    for share in (1.0, 0.5, 0.25):
        hashed = {**settings, "table": "modulo", "n_rows": int(share * 2625)}
        label = f"modulo, {hashed['n_rows']:,} rows for 2,625 identifiers"
        found.append(bench.measure(label, pass_over, "MovieLens", "ours", 256, hashed))
    aucs = [one.auc for one in found]
    bench.claim("identifiers with a row of their own", found[0].ids, at_least=2625, at_most=2625)
    bench.claim("AUC lost with a quarter of the rows", aucs[0] - aucs[-1], at_least=0.06)
    bench.claim("smallest loss from one table to the next smaller one", -np.diff(aucs).max(), at_least=0)


def freshness(bench):
    """Freshness: MovieLens, batches of 256, learning_rate=0.05; predictions by a copy that is refreshed at intervals"""
    if why := data.missing("movielens_100k"):
        return bench.skip(why)
    aucs = []
    for interval in (0, 2_000, 10_000, 40_000):
        settings = {"batch_size": 256, "learning_rate": 0.05, "sync_interval": interval}
        aucs.append(bench.measure(f"sync_interval={interval:,}", pass_over, "MovieLens", "ours", 256, settings).auc)
    bench.claim("smallest loss from one interval to the next longer one", -np.diff(aucs).max(), at_least=0)
    bench.claim("AUC lost at 40,000", aucs[0] - aucs[-1], at_least=0.04)


def admission(bench):
    """Admission: 100,000 generated rows, 30 % of users that come once; batches of 256, learning_rate=0.1"""
    settings = {"batch_size": 256, "learning_rate": 0.1}
    every = bench.measure("min_count=1", pass_over, "strangers", "ours", 256, settings)
    exact = bench.measure("min_count=3", pass_over, "strangers", "ours", 256, {**settings, "min_count": 3})
    sketch = {**settings, "min_count": 3, "filter_capacity": 60_000}
    about = bench.measure("min_count=3, filter_capacity=60,000", pass_over, "strangers", "ours", 256, sketch)
    chance = {**settings, "min_count": 3, "admission": "probabilistic"}
    bench.measure("min_count=3, probabilistic", pass_over, "strangers", "ours", 256, chance)
    bench.claim("rows of identifiers, of min_count=1 to those of 3", every.ids / exact.ids, at_least=5)
    bench.claim("AUC lost", every.auc - exact.auc, at_most=0.005)
    bench.claim("rows of the sketch to those of exact counts", about.ids / exact.ids, at_least=0.9, at_most=1.1)
    share = bench.measure("probabilistic, 20 occurrences", admitted_by_chance, 20).share
    bench.claim("share admitted by chance after min_count occurrences", share, at_least=0.93, at_most=0.97)


def speed(bench):
    """Speed: predict and learn in batches of 1,024, of which batch_size updates once; 100,000 users, 30,000 items"""
    whole = bench.measure("ours, batch_size=1024", throughput, "ours", {"batch_size": 1024})
    bench.measure("ours, batch_size=32", throughput, "ours", {})
    hashed = bench.measure("FeatureHasher and SGDClassifier", throughput, "hashed", {"bits": 18}, 2, 100_000)
    bench.claim("rows a second", whole.rate, at_least=200_000)
    bench.claim("rows a second, of ours to those of the hashed model", whole.rate / hashed.rate, at_least=1)
    wide = bench.measure("ours, 26 columns, batch_size=1024", throughput, "ours", {"batch_size": 1024}, 26, 50_000)
    plain = bench.measure("FeatureHasher and SGDClassifier, 26 columns", throughput, "hashed", {"bits": 18}, 26, 20_000)
    bench.claim("rows a second, 26 columns, of ours to those of the hashed model", wide.rate / plain.rate, at_least=1)


def growth(bench):
    """Growth: steps of 256 rows beside tables of two sizes; 500,000 new identifiers, in batches of 100,000"""
    small, large = (bench.measure(f"a step beside {n:,} live rows", step, n) for n in (10_000, 500_000))
    bench.claim("seconds of a step, beside 500,000 rows over beside 10,000", large.seconds / small.seconds, at_most=3)
    learned = bench.measure("ours, linear, new identifiers", new_identifiers, "ours")
    bare = bench.measure("a dict in a loop", new_identifiers, "dict")
    bench.claim("distinct rows of 500,000 new identifiers", learned.distinct, at_least=500_000)
    bench.claim("seconds over those of the dict alone", learned.seconds / bare.seconds, at_most=25)


def memory(bench):
    """Memory: two million identifiers of which none comes twice; batches of 1,024"""
    settings = {"batch_size": 1024}
    free = bench.measure("no bound", once_only, settings)
    capped = bench.measure("max_rows=100,000", once_only, {**settings, "max_rows": 100_000})
    sketch = {**settings, "min_count": 3, "filter_capacity": 100_000}
    bounded = bench.measure("min_count=3, filter_capacity=100,000", once_only, sketch)
    bench.measure("min_count=3, exact counts", once_only, {**settings, "min_count": 3})
    bench.claim("rows under max_rows=100,000", capped.ids, at_most=100_000)
    bench.claim("MB added under max_rows over those without", capped.added / free.added, at_most=0.15)
    bench.claim("MB added by the bounded filter over those without", bounded.added / free.added, at_most=0.15)


def copies(bench):
    """Copies: snapshot after half of 200,000 rows, restored and continued; a delta applied to the copy"""
    found = bench.measure("ours", saved)
    bench.claim("largest difference of a probability after the snapshot", found.restored, at_most=0)
    bench.claim("largest difference of a probability after the delta", found.replica, at_most=0)
    bench.claim("size of the delta over that of the snapshot", found.delta / found.size, at_most=0.5)


CASES = [quality, drift, collisions, freshness, admission, speed, growth, memory, copies]
