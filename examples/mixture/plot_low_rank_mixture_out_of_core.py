"""
Out-of-core and distributed clustering: memmaps and Dask
========================================================

A file larger than memory is opened as a memmap and fitted in blocks of rows. The same fit runs on the partitions of a
Dask array, with the same clusters. Dask is in the extra ``dask``.
"""

# %%
# A file of 200,000 rows: half of them near a plane, the others near two lines, in 20 columns.
import tempfile
from pathlib import Path

import numpy as np

rng = np.random.default_rng(0)
folder = tempfile.TemporaryDirectory()
path = Path(folder.name) / "rows.npy"
dims, shares = [2, 1, 1], [0.5, 0.3, 0.2]
bases = [np.linalg.qr(rng.normal(size=(20, d)))[0] for d in dims]
centres = 0.5 * rng.normal(size=(3, 20))
truth = rng.choice(3, size=200_000, p=shares)

rows = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(len(truth), 20))
for k, (basis, d) in enumerate(zip(bases, dims)):
    mine = truth == k
    rows[mine] = centres[k] + 3 * rng.normal(size=(mine.sum(), d)) @ basis.T + 0.3 * rng.normal(size=(mine.sum(), 20))
rows.flush()

# %%
# A memmap is fitted like any array: initialised on a few thousand rows, then read in blocks in each iteration.
from sklowrank.metrics import clustering_accuracy
from sklowrank.mixture import LowRankGaussianMixture

mixture = LowRankGaussianMixture(3, n_dims=dims, random_state=0)
from_file = mixture.fit(np.load(path, mmap_mode="r"))
clustering_accuracy(truth, from_file.labels_)

# %%
# On a cluster the workers read the partitions; here threads of this process do. Means agree up to the order of
# additions.
import dask.array as da
from sklearn.base import clone

from sklowrank import distributed

partitions = da.from_array(np.load(path, mmap_mode="r"), chunks=(25_000, -1))
on_cluster = distributed.fit(clone(mixture), partitions)
np.abs(on_cluster.means_ - from_file.means_).max()

# %%
# Predictions are lazy.
labels = distributed.predict(on_cluster, partitions)
labels

# %%
# Some rows in the plane of their first two principal axes.
import matplotlib.pyplot as plt

shown = rng.choice(len(truth), 3000, replace=False)
some = np.asarray(rows[np.sort(shown)], dtype=float)
found = labels.compute()[np.sort(shown)]
axes = np.linalg.svd(some - some.mean(0), full_matrices=False)[2][:2]
figure, panel = plt.subplots(figsize=(6, 4.5))
for k in range(3):
    points = (some[found == k] - some.mean(0)) @ axes.T
    panel.scatter(*points.T, s=4, label=f"{dims[k]} {'dimension' if dims[k] == 1 else 'dimensions'}")
panel.set(xlabel="first axis", ylabel="second axis", title="Clusters of a file of 200,000 rows")
panel.legend(frameon=False, markerscale=3)
plt.show()
folder.cleanup()

# %%
# What to see: a plane and two lines that intersect it, separated in a file that was never in memory as a whole.
