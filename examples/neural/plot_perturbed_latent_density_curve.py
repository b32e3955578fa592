"""
Samples and densities near a curve
==================================

:class:`~sklowrank.neural.PerturbedLatentDensity` trains a network on rows to which noise is added. `sample` draws from
the distribution without that noise, `score_samples` is the log density of the one with it.
"""

# %%
# 600 rows of a closed curve in ten dimensions, without noise, and samples of two networks: one trained on the rows as
# they are, one on rows that are perturbed by a fifth of the standard deviation of each column.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.decomposition import PCA

from sklowrank.neural import PerturbedLatentDensity

A = np.random.default_rng(99).normal(size=(6, 10)) / 2


def curve(n, seed):
    t = np.random.default_rng(seed).uniform(size=n)
    a = 2 * np.pi * t
    return np.column_stack([np.cos(a), np.sin(a), np.cos(2 * a), np.sin(2 * a), t, t**2]) @ A


X = curve(600, 0)
view = PCA(2).fit(X)
fig, axes = plt.subplots(1, 3, figsize=(10, 3.6), sharex=True, sharey=True)
axes[0].scatter(*view.transform(curve(600, 1)).T, s=4, color="C7")
axes[0].set(title="new rows", ylabel="component 2")
for ax, s in zip(axes[1:], (0.0, 0.2)):
    model = PerturbedLatentDensity(2, s, n_importance=5, max_iter=500, random_state=1).fit(X)
    ax.scatter(*view.transform(model.sample(600, random_state=5)).T, s=4, color="C0" if s else "C1")
    ax.set(title=f"samples, perturbation {s}\nnoise_ {model.noise_:.3f}")
for ax in axes:
    ax.set(xlabel="component 1", aspect="equal")
plt.tight_layout()
plt.show()

# %%
# A spiral in the plane, where densities can be seen: the log density of the smoothed distribution, and samples of the
# one without noise.

t = np.random.default_rng(0).uniform(size=600)
r = 0.2 + 0.8 * t
X = np.column_stack([r * np.cos(3 * np.pi * t), r * np.sin(3 * np.pi * t)])
model = PerturbedLatentDensity(2, 0.1, n_importance=5, n_eval_samples=200, random_state=0).fit(X)
axis = np.linspace(-1.3, 1.3, 70)
grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)

fig, axes = plt.subplots(1, 2, figsize=(9, 4), sharex=True, sharey=True)
heat = axes[0].pcolormesh(axis, axis, model.score_samples(grid).reshape(70, 70), vmin=-8, cmap="viridis")
fig.colorbar(heat, ax=axes[0], label="nats")
axes[0].set(title="log density, with the noise")
axes[1].scatter(*X.T, s=4, color="C7", label="rows")
axes[1].scatter(*model.sample(600, random_state=1).T, s=4, color="C0", label="samples")
axes[1].legend(loc="upper left")
axes[1].set(title="samples, without it")
for ax in axes:
    ax.set(aspect="equal")
plt.tight_layout()
plt.show()

# %%
# What to see: in ten dimensions the network of rows as they are makes its noise smaller and smaller; with the
# perturbation the noise stays at 0.2, and samples are nearer to new rows in Wasserstein distance. Both have samples
# where the decoder crosses from one branch to another. The density is as wide as the perturbation, most samples are
# not. In the plane nothing is gained over a mixture of Gaussians, whose samples are nearer to new rows.
