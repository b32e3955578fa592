"""Tables of each size: files that are made when they are first asked for, and what is made of them."""

import os
import tempfile
from pathlib import Path

import numpy as np

COLUMNS = 50


def folder():
    """Where files lie: a folder of this user's temporary ones."""
    place = Path(tempfile.gettempdir()) / f"sklowrank-scale-{os.getuid()}"
    place.mkdir(exist_ok=True)
    return place


def file_of(n, columns=COLUMNS):
    """Return the path of a table of n rows; its labels lie beside it."""
    path = folder() / f"{n}x{columns}.npy"
    if not path.exists():
        write(path, n, columns)
    return path


def write(path, n, columns):
    rng, half = np.random.default_rng(0), path.with_suffix(".part")
    bases = np.stack([np.linalg.qr(rng.normal(size=(columns, 3)))[0].T for _ in range(4)]).astype(np.float32)
    centres = 2 * rng.normal(size=(4, columns)).astype(np.float32)
    X = np.lib.format.open_memmap(half, mode="w+", dtype=np.float32, shape=(n, columns))
    labels = rng.integers(0, 4, n).astype(np.int8)
    for start in range(0, n, 50_000):
        k = labels[start : start + 50_000]
        Z = 3 * rng.standard_normal((len(k), 1, 3), dtype=np.float32)
        noise = 0.3 * rng.standard_normal((len(k), columns), dtype=np.float32)
        X[start : start + 50_000] = (Z @ bases[k])[:, 0] + centres[k] + noise
    X.flush()
    np.save(path.with_suffix(".labels.npy"), labels)
    half.rename(path)


def data_of(kind, n, columns=COLUMNS):
    """Return X and y of n rows: a memmap, unless the kind has to be made of it."""
    path = file_of(n, columns)
    X, labels = np.load(path, mmap_mode="r"), np.load(path.with_suffix(".labels.npy"))
    if kind == "classes":
        return X, labels
    if kind == "numbers":
        return X, np.asarray(X[:, 0] + 0.5 * X[:, 1] ** 2, dtype=np.float64)
    if kind == "holes":
        X = np.array(X)
        X[np.random.default_rng(1).random(X.shape) < 0.2] = np.nan
        return X, None
    if kind == "pairs":  # as many values as rows, of a matrix with a tenth of the rows
        rng = np.random.default_rng(2)
        pairs = np.column_stack([rng.integers(0, max(1, n // 10), n), rng.integers(0, COLUMNS, n)])
        return pairs, X[pairs[:, 0], pairs[:, 1]].astype(np.float64)
    return X, None
