"""Data that benchmarks share: what scikit-learn bundles, what `SKLOWRANK_DATA` names, and what is generated."""

import os
from pathlib import Path

import numpy as np
from sklearn.datasets import (
    load_breast_cancer,
    load_diabetes,
    load_digits,
    load_iris,
    load_wine,
    make_blobs,
    make_circles,
    make_classification,
    make_moons,
)
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.model_selection import train_test_split
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler, scale

_BUNDLED = {
    "breast cancer": load_breast_cancer,
    "diabetes": load_diabetes,
    "digits": load_digits,
    "iris": load_iris,
    "wine": load_wine,
}
RANGES_OF_BREAST_CANCER = [30, 40, 200, 2600, 0.2, 0.4, 0.5, 0.25, 0.4, 0.1, 3, 5, 25, 600, 0.04, 0.15, 0.4, 0.06, 0.08]
RANGES_OF_BREAST_CANCER += [0.03, 40, 50, 260, 4300, 0.25, 1.1, 1.3, 0.3, 0.7, 0.21]  # of its columns, and public


# Bundled with scikit-learn, or in the folder that SKLOWRANK_DATA names


def bundled(name):
    """X and y of a table that scikit-learn bundles, in its own units; names may have underscores."""
    return _BUNDLED[name.replace("_", " ")](return_X_y=True)


def missing(*names):
    """What to set for data that are not here: why a case is not run, or nothing."""
    where = " and ".join([", ".join(names[:-1]), names[-1]] if names[1:] else names)
    return "" if os.environ.get("SKLOWRANK_DATA") else f"set SKLOWRANK_DATA to a folder with {where} in it"


def folder(name):
    """The folder of a data set that is not bundled."""
    return Path(os.environ["SKLOWRANK_DATA"]) / name


def images(name, low=0, high=np.inf):
    """Grey images of 32 x 32 pixels as rows, from 0 to 255, and their classes, those from `low` to below `high`."""
    file = np.load(next(folder(name).glob("*.npz")))
    kept = (file["y"] >= low) & (file["y"] < high)
    return file["X"][kept].astype(float), file["y"][kept]


def of_classes(name):
    """Images by a name such as "yaleb32 0-9", where the numbers are the first and the last class."""
    name, *classes = name.split()
    low, high = (int(part) for part in classes[0].split("-")) if classes else (0, np.inf)
    return images(name, low, high + 1)


def with_gaps(X, seed, share=0.3):
    """X, the same with a share of its cells missing, and which they are."""
    hole = np.random.RandomState(seed).rand(*X.shape) < share
    return X, np.where(hole, np.nan, X), hole


def movielens():
    """MovieLens-100k: the u1 split as (pairs, ratings) twice."""
    place = folder("movielens_100k")
    everything, test = (np.loadtxt(place / name, dtype=int) for name in ("u.data", "u1.test"))
    hidden = set(map(tuple, test[:, :2]))
    train = everything[[tuple(pair) not in hidden for pair in everything[:, :2]]]
    return train[:, :2], train[:, 2].astype(np.float32), test[:, :2], test[:, 2]


def messages():
    """Texts and whether they are spam."""
    file = folder("sms_spam") / "SMSSpamCollection"
    pairs = [line.split("\t", 1) for line in file.read_text(encoding="utf-8").splitlines() if "\t" in line]
    return [text for _, text in pairs], np.array([label == "spam" for label, _ in pairs])


def spam(seed):
    """A table of 1000 words, sparse, with length, digits and capitals as covariates."""
    texts, y = messages()
    texts, texts_new, y, y_new = train_test_split(texts, y, test_size=0.3, stratify=y, random_state=seed)
    words = TfidfVectorizer(max_features=1000, stop_words="english", min_df=3).fit(texts)

    def beside(texts):
        counts = [(len(t), sum(c.isdigit() for c in t), sum(c.isupper() for c in t)) for t in texts]
        length, digits, capitals = np.array(counts, dtype=float).T
        return np.column_stack([np.log1p(length), digits / length, capitals / length])

    scaler = StandardScaler().fit(beside(texts))
    z, z_new = scaler.transform(beside(texts)), scaler.transform(beside(texts_new))
    return words.transform(texts), y, z, words.transform(texts_new), y_new, z_new


# Generated


def toy_clusters(name):
    """Two-dimensional shapes, and round clusters in ten columns of the sizes that the name says: "round 270/20/10"."""
    if name == "moons":
        return make_moons(600, noise=0.06, random_state=0)
    if name == "circles":
        return make_circles(600, factor=0.5, noise=0.05, random_state=0)
    sizes = [int(size) for size in name.split()[1].split("/")]
    return make_blobs(sizes, 10, cluster_std=1.0, random_state=0)


def low_rank(m, n, rank, share, noise, condition, seed=0):
    """A matrix of given rank with entries of mean square one, its noisy cells with missing values, and their mask."""
    rng = np.random.RandomState(seed)
    left = np.linalg.qr(rng.randn(m, rank))[0]
    right = np.linalg.qr(rng.randn(n, rank))[0]
    truth = left * np.geomspace(1, 1 / condition, rank) @ right.T
    truth *= np.sqrt(truth.size) / np.linalg.norm(truth)
    seen = rng.rand(m, n) < share
    table = np.full((m, n), np.nan)
    table[seen] = truth[seen] + noise * rng.randn(seen.sum())
    return truth, table, ~seen


def generated_table(rank=8, noise=0.5):
    """A table of 20,000 x 100: signal of variance one, noise, and 30 % missing values."""
    rng = np.random.RandomState(0)
    signal = rng.randn(20_000, rank) @ rng.randn(rank, 100) / np.sqrt(rank)
    X = signal + noise * rng.randn(*signal.shape)
    hole = rng.rand(*X.shape) < 0.3
    return signal, X, np.where(hole, np.nan, X), hole


def long_table(n_samples=50_000, n_features=30, rank=5):
    """A table of 50,000 x 30: rank 5, noise of half its standard deviation, and 30 % missing values."""
    rng = np.random.RandomState(0)
    X = rng.randn(n_samples, rank) @ rng.randn(rank, n_features)
    X += 0.5 * np.sqrt(rank) * rng.randn(*X.shape)
    hole = rng.rand(*X.shape) < 0.3
    return X, np.where(hole, np.nan, X), hole


def survey(n_samples=1500, n_features=24, n_traits=4):
    """Answers from 1 to 5 to 24 questions, each about one of four traits above all; 25 % are missing."""
    rng = np.random.RandomState(0)
    loadings = 0.3 * rng.randn(n_traits, n_features)
    loadings[np.arange(n_features) % n_traits, np.arange(n_features)] += 1
    X = 3 + 0.8 * rng.randn(n_samples, n_traits) @ loadings + 0.7 * rng.randn(n_samples, n_features)
    X = np.clip(np.round(X), 1, 5)
    hole = rng.rand(*X.shape) < 0.25
    return X, np.where(hole, np.nan, X), hole


def one_factor(seed, at_random, n_samples=1000, n_features=8):
    """One factor, equal loadings; values of column 1 are missing at random, or more often where column 0 is large."""
    rng = np.random.default_rng(seed)
    X = np.sqrt(0.5) * (rng.normal(size=(n_samples, 1)) + rng.normal(size=(n_samples, n_features)))
    gone = rng.random(n_samples) < (1 / (1 + np.exp(1 - 2 * X[:, 0])) if at_random else 0.37)
    table = X.copy()
    table[gone, 1] = np.nan
    return X, table, gone


def ratings(m, n, cells, rank=8):
    """Pairs with log-normal popularity of rows and columns, values of given rank with noise, and 200,000 test pairs."""
    rng = np.random.RandomState(0)
    popularity = [rng.lognormal(0, sigma, size) for sigma, size in ((1.2, m), (1.5, n))]
    draw = [np.cumsum(p / p.sum()) for p in popularity]
    key = np.empty(0, np.int64)
    while len(key) < cells:
        rows, cols = (np.searchsorted(c[:-1], rng.rand(cells // 2)) for c in draw)
        key = np.union1d(key, rows * n + cols)
    pairs = np.column_stack(divmod(rng.permutation(key)[:cells], n))
    left, right = rng.randn(m, rank) / np.sqrt(rank), rng.randn(n, rank)
    y = np.empty(cells, np.float32)
    for part in np.array_split(np.arange(cells), 1 + cells // 1_000_000):
        y[part] = np.einsum("ij,ij->i", left[pairs[part, 0]], right[pairs[part, 1]]) + 0.5 * rng.randn(len(part))
    test = np.column_stack([rng.choice(np.unique(pairs[:, i]), 200_000) for i in (0, 1)])
    return pairs, y, test, np.einsum("ij,ij->i", left[test[:, 0]], right[test[:, 1]])


def union(n_samples, n_features, n_dims, n_clusters, **options):
    from sklowrank.datasets import make_union_of_subspaces

    return make_union_of_subspaces(n_samples, n_features, n_dims, n_clusters, **options)


def small_union(rows, seed):
    """Three orthogonal 6-dimensional subspaces in 48 dimensions, some rows of each, noise 0.02."""
    return union(3 * rows, 48, 6, 3, noise=0.02, orthogonal=True, random_state=seed)


def flats(n_samples, affine):
    """Ten subspaces of dimension 5 in 64 columns, noise 0.3; float32, made in blocks: the memory is that of X."""
    rng = np.random.RandomState(0)
    bases = np.linalg.qr(rng.randn(10, 64, 5))[0]
    offsets = affine * rng.randn(10, 64)
    y = rng.randint(10, size=n_samples)
    X = np.empty((n_samples, 64), dtype=np.float32)
    for rows in np.array_split(np.arange(n_samples), max(1, n_samples // 10_000)):
        coordinates = rng.randn(len(rows), 5, 1)
        X[rows] = offsets[y[rows]] + (bases[y[rows]] @ coordinates)[:, :, 0] + 0.3 * rng.randn(len(rows), 64)
    return X, y


def answers_to_questions(n_samples):
    """Yes and no to 284 questions: 20 groups of people, six traits; many questions to which few say yes."""
    rng = np.random.RandomState(0)
    base, loadings, groups = 1.5 * rng.randn(284) - 4, 0.9 * rng.randn(6, 284), rng.randn(20, 6)
    traits = groups[rng.randint(20, size=n_samples)] + 0.3 * rng.randn(n_samples, 6)
    return (rng.rand(n_samples, 284) < 1 / (1 + np.exp(-base - traits @ loadings))).astype(float)


def many_digits(n_samples):
    """Digits, enlarged: points between a row and one of its five nearest of the same class, some noise; float32."""
    X, y = load_digits(return_X_y=True)
    rng = np.random.RandomState(0)
    near = np.empty((len(X), 5), dtype=int)
    for k in range(10):
        rows = np.flatnonzero(y == k)
        near[rows] = rows[NearestNeighbors(n_neighbors=5).fit(X[rows]).kneighbors(return_distance=False)]
    first = rng.randint(len(X), size=n_samples)
    second = near[first, rng.randint(5, size=n_samples)]
    share = rng.rand(n_samples, 1).astype(np.float32)
    X, rows = X.astype(np.float32), X.astype(np.float32)[first]
    return rows + share * (X[second] - rows) + 0.5 * rng.randn(n_samples, 64).astype(np.float32), y[first]


def nuisance(seed, n_samples=1500, numbers=False, n_features=50, n_strong=5, size=5.0):
    """A signal in one weak direction under strong ones of a standard deviation `size`, and two covariates."""
    rg = np.random.RandomState(seed)
    Q = np.linalg.qr(rg.randn(n_features, n_strong + 2))[0]
    u, w, z = rg.randn(n_samples, n_strong) * size, rg.randn(n_samples, 1) * 1.5, rg.randn(n_samples, 2)
    X = u @ Q[:, :n_strong].T + w @ Q[:, n_strong : n_strong + 1].T + 0.5 * rg.randn(n_samples, n_features)
    logit = 2 * w[:, 0] + 1.5 * z[:, 0] - z[:, 1]
    return X, logit + rg.randn(n_samples) if numbers else rg.rand(n_samples) < 1 / (1 + np.exp(-logit)), z


def three_classes(seed):
    """Rows of 300 columns near ten directions, five of which tell the classes apart; 70 % of the rows are 2000."""
    rg = np.random.RandomState(seed)
    directions, X = np.linalg.qr(rg.randn(300, 10))[0].T, rg.randn(2858, 10) * np.linspace(5, 1, 10)
    y = (X[:, 5:] @ rg.randn(5, 3) + rg.gumbel(size=(2858, 3))).argmax(1)
    return X @ directions + 0.5 * rg.randn(2858, 300), y, None


def mixtures_of_images(seed):
    """The simulation of the paper: rows are mixtures of images, and so are the classes, of others by the same codes."""
    rg = np.random.RandomState(seed)
    images, digit = load_digits(return_X_y=True)
    pick = [rg.choice(np.flatnonzero(digit == k), 2, replace=False) for k in (2, 7, 1, 4)]
    Wx, Wy = (images[np.concatenate(pick[i : i + 2])] / 16 for i in (0, 2))
    X = rg.rand(1000, 4) @ Wx
    logit = X @ Wy.T @ np.array([1, 1, -1, -1])
    y = rg.rand(1000) < 1 / (1 + np.exp(-(logit - logit.mean())))
    return X + 0.2 * rg.randn(*X.shape), y, None


def logarithms(y):
    e, V = np.linalg.eigh(y)
    return ((V * np.log(e)[:, None, :]) @ V.transpose(0, 2, 1)).reshape(len(y), -1)


def ink(half=True):
    """The left halves of the digits, and how the ink of the whole digit spreads: covariance matrices of its place."""
    images = load_digits().images
    rows, columns = np.mgrid[:8, :8]
    place = np.column_stack([columns.ravel(), rows.ravel()]).astype(float)
    share = images.reshape(len(images), -1)
    share = share / share.sum(1, keepdims=True)
    mean = share @ place
    S = np.einsum("ni,ij,ik->njk", share, place, place) - mean[:, :, None] * mean[:, None, :]
    X = images[:, :, :4] if half else images
    return X.reshape(len(X), -1), S + 0.05 * np.eye(2)


def clusters_in_a_plane():
    """20,000 rows of three clusters in the unit square, and 400 queries."""
    rng = np.random.default_rng(1)
    centres = np.array([[0.25, 0.3], [0.7, 0.65], [0.4, 0.8]])
    X = np.clip(centres[rng.integers(0, 3, 20_000)] + 0.07 * rng.standard_normal((20_000, 2)), 0, 1)
    return X, np.random.default_rng(2).random((400, 2)), 0.1


# Rows of which some are fitted and others are new


def distances(n_features):
    """2,000 rows and queries in the unit cube, and the sums of absolute differences of each query to all rows."""
    X = np.random.default_rng(0).beta(2, 5, (2000, n_features))
    Y = np.random.default_rng(9).random((50, n_features)) if n_features > 1 else np.linspace(0, 1, 101)[:, None]
    return X, Y, np.abs(X[:, None] - Y[None]).sum((0, 2))


def within_public_ranges(name):
    """Rows that public ranges bring to 0 to 1, their classes, and the bandwidth of a kernel for them."""
    if name == "digits":
        X, y = bundled(name)
        return X / 16, y, 1.2
    if name == "breast cancer":
        X, y = bundled(name)
        return np.clip(X / RANGES_OF_BREAST_CANCER, 0, 1), y, 0.45
    X, y = make_classification(20_000, 20, n_informative=10, n_redundant=0, n_classes=4, class_sep=1.5, random_state=0)
    return np.clip((X + 6) / 12, 0, 1), y, 0.3


SUPERVISED = {  # rows, targets and covariates or None, by name from a seed
    "nuisance": nuisance,
    "nuisance of eight": lambda seed: nuisance(seed, 1000, n_features=200, n_strong=8, size=4.0),
    "nuisance, numbers": lambda seed: nuisance(seed, numbers=True),
    "three classes": three_classes,
    "pixels": mixtures_of_images,
    "faces": lambda seed: (images("yaleb32")[0] / 255, images("yaleb32")[1], None),
    "digits": lambda seed: (bundled("digits")[0] / 16, bundled("digits")[1], None),
    "breast cancer": lambda seed: standardised("breast cancer"),
    "wine": lambda seed: standardised("wine"),
    "diabetes": lambda seed: standardised("diabetes"),
}
_STRATIFIED = ("three classes", "faces", "digits", "breast cancer", "wine")


def standardised(name):
    """A bundled table with standardised columns, and no covariates."""
    X, y = bundled(name)
    return scale(X), y, None


def split(name, seed):
    """Fitted and new rows of one of SUPERVISED or of the messages: X, y, z twice; X is centred by the fitted rows."""
    if name == "spam":
        return spam(seed)
    X, y, z = SUPERVISED[name](seed)
    z = np.zeros((len(y), 0)) if z is None else z
    stratify = y if name in _STRATIFIED else None
    parts = train_test_split(X, y, z, test_size=0.3, random_state=seed, stratify=stratify)
    X, X_new, y, y_new, z, z_new = parts
    mean = X.mean(0)
    return X - mean, y, z, X_new - mean, y_new, z_new
