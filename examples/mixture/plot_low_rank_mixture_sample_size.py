"""
Rows needed to recover subspaces: mixture and K-subspaces
=========================================================

A subspace of dimension 6 cannot be known from fewer than six rows. Down to that limit
:class:`~sklowrank.mixture.LowRankGaussianMixture` recovers as much as if the clusters were known; K-subspaces from
random starts needs several times as many rows. Initialisation makes the difference.
"""

# %%
# Three orthogonal subspaces of dimension 6 in 48 columns, with little noise and 6 to 60 rows each. The error is
# :func:`~sklowrank.metrics.subspace_recovery_error`: 0 for the true subspaces, 1 for orthogonal ones.

import matplotlib.pyplot as plt
import numpy as np

from sklowrank.cluster import KSubspaces
from sklowrank.datasets import make_union_of_subspaces
from sklowrank.metrics import subspace_recovery_error
from sklowrank.mixture import LowRankGaussianMixture

rows = [6, 8, 10, 12, 16, 20, 30, 60]


def with_known_clusters(X, y):
    """Principal components of each true cluster."""
    return [np.linalg.svd(X[y == k], full_matrices=False)[2][:6].T for k in range(3)]


# %%
# Means over three data sets. The mixture is initialised by graphs among others; K-subspaces here by the best of twenty
# random starts.

errors = {"clusters known": [], "mixture": [], "K-subspaces, random starts": []}
for n in rows:
    found = {name: [] for name in errors}
    for seed in range(3):
        X, y, bases = make_union_of_subspaces(3 * n, 48, 6, 3, noise=0.02, orthogonal=True, random_state=seed)
        mixture = LowRankGaussianMixture(3, n_dims=6, affine=False, random_state=seed).fit(X)
        chance = KSubspaces(3, n_dims=6, affine=False, init="random", n_init=20, random_state=seed).fit(X)
        for name, U in zip(errors, (with_known_clusters(X, y), mixture.bases_, chance.bases_)):
            found[name].append(subspace_recovery_error(U, bases))
    for name in errors:
        errors[name].append(np.mean(found[name]))

# %%

figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
for (name, values), style, colour in zip(errors.items(), (":", "o-", "s--"), ("0.2", "#0f766e", "#c08a3e")):
    axes.plot(rows, values, style, color=colour, label=name, lw=3 if style == ":" else 1.5)
axes.axvline(6, color="0.8", zorder=0)
axes.set(xlabel="rows on each subspace", ylabel="recovery error", xscale="log", xticks=rows, xticklabels=rows)
axes.minorticks_off()
axes.set_ylim(0, None)
axes.legend(frameon=False)
plt.show()

# %%
# What to see: the curve of the mixture coincides with that of known clusters. Random starts end in wrong partitions
# up to thirty rows on each subspace. The default initialisation of :class:`~sklowrank.cluster.KSubspaces` uses the
# graph too.
