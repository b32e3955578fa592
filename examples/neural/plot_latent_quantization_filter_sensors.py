"""
Noisy sensors, and readings that do not fit
===========================================

Thirty sensors follow six factors, each by a curve that saturates. A filter that was fitted to clean readings,
:class:`~sklowrank.neural.LatentQuantizationFilter`, removes noise from new ones and finds readings that do not fit
together. The data are synthetic, so that the clean readings are known.
"""

# %%
# Clean readings at random states of the plant, and a day of a plant that drifts from state to state.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.decomposition import PCA
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import KNeighborsRegressor

from sklowrank.neural import LatentQuantizationFilter

rng = np.random.default_rng(0)
loadings, offsets = 1.5 * rng.normal(size=(6, 30)) / 6**0.5, rng.uniform(-1, 1, 30)


def readings(states):
    return np.tanh(states @ loadings + offsets) + 0.02 * rng.normal(size=(len(states), 30))


train = readings(rng.normal(size=(1500, 6)))
hours = np.linspace(0, 24, 400)
phases, speeds = rng.uniform(0, 2 * np.pi, 6), rng.uniform(0.5, 2.5, 6)
day = readings(1.4 * np.sin(2 * np.pi * hours[:, None] / 24 * speeds + phases))
noisy = day + 0.4 * rng.normal(size=day.shape)

# %%
# A fine grid of codes suits a denoiser: `step` and `latent_noise` are half of their defaults. The noise is a fifth of a
# sensor's range.

cleaner = LatentQuantizationFilter(input_noise=0.2, step=0.25, latent_noise=0.25, max_iter=100, random_state=0)
cleaner.fit(train)
pca = PCA(6).fit(train)
filters = {
    "PCA, 6 components": pca.inverse_transform(pca.transform(noisy)),
    "ten nearest rows": KNeighborsRegressor(10).fit(train, train).predict(noisy),
    "latent quantization": cleaner.transform(noisy),
}

fig, axes = plt.subplots(3, 1, figsize=(8, 6.5), sharex=True, sharey=True)
for i, (ax, (name, filtered)) in enumerate(zip(axes, filters.items())):
    left = np.sum((filtered - day) ** 2) / np.sum((noisy - day) ** 2)
    ax.plot(hours, noisy[:, 0], ".", ms=3, color="0.75", label="noisy")
    ax.plot(hours, filtered[:, 0], lw=1, color=f"C{i}", label="filtered")
    ax.plot(hours, day[:, 0], lw=1, color="k", label="clean")
    ax.set_title(f"{name}: {left:.0%} of the squared error left", fontsize=10)
axes[-1].set(xlabel="hour", ylabel="one sensor", xlim=(0, 24))
axes[0].legend(fontsize=7, loc="lower right", ncols=3)
plt.tight_layout()
plt.show()

# %%
# Readings that do not fit: one sensor of a row shows what it showed at another time. Each value is ordinary for its
# sensor; together they are not. `score_samples` says how little the filter changes a row.

odd, cells = day.copy(), rng.integers(0, 30, len(day))
at = np.arange(len(day))
odd[at, cells] = day[rng.permutation(len(day)), cells]
labels = np.repeat([0, 1], len(day))
scores = {"latent quantization": np.r_[cleaner.score_samples(day), cleaner.score_samples(odd)]}
for k in (6, 12):
    model = PCA(k).fit(train)
    change = [np.mean((model.inverse_transform(model.transform(Z)) - Z) ** 2, 1) for Z in (day, odd)]
    scores[f"PCA, {k} components"] = -np.concatenate(change)

fig, axes = plt.subplots(1, 3, figsize=(9, 3))
for ax, (name, score) in zip(axes, scores.items()):
    bins = np.histogram_bin_edges(np.log10(-score), 30)
    for kind, label in enumerate(("ordinary", "one sensor odd")):
        ax.hist(np.log10(-score[labels == kind]), bins, alpha=0.6, label=label)
    ax.set_title(f"{name}\nAUC {roc_auc_score(labels, -score):.2f}", fontsize=9)
    ax.set_xlabel("log of the change")
axes[0].legend(fontsize=7)
plt.tight_layout()
plt.show()

# %%
# What to see: readings that saturate do not lie in a plane, so that six principal components distort them, and the
# filter removes more noise. The scores separate rows with one odd sensor in part, a little better than those of PCA: a
# reading that moves by chance to nearly the same value is no anomaly, and the filter's own error hides small ones.
