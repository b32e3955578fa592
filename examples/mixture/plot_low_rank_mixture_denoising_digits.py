"""
Denoising digits with a mixture of low-rank Gaussians
=====================================================

Images of one kind vary in a few directions about their mean. :class:`~sklowrank.mixture.LowRankGaussianMixture` has a
mean and directions for each component, and the expected clean image given a noisy one in closed form. Principal
components have one set of directions for all.
"""

# %%
# Handwritten digits of eight by eight pixels. Noise is added to held-out images.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.model_selection import train_test_split

from sklowrank.mixture import LowRankGaussianMixture

known, clean = train_test_split(load_digits().data, test_size=300, random_state=0)
noise_std = 4.0
noisy = clean + noise_std * np.random.default_rng(0).normal(size=clean.shape)

# %%
# Fifteen components of eight dimensions. The standard deviation of the added noise is known.

mixture = LowRankGaussianMixture(15, n_dims=8, random_state=0).fit(known)
denoised = mixture.denoise(noisy, noise_std)

# %%
# Principal components, with the number that is best for these images.


def error(images):
    """Root mean squared error of a pixel."""
    return np.sqrt(np.mean((images - clean) ** 2))


projections = {}
for k in range(4, 33, 2):
    pca = PCA(k).fit(known)
    projections[k] = pca.inverse_transform(pca.transform(noisy))
best = min(projections, key=lambda k: error(projections[k]))
for name, images in {"noisy": noisy, f"{best} principal components": projections[best], "mixture": denoised}.items():
    print(f"{name}: {error(images):.2f}")

# %%
# Ten images.

rows = {"clean": clean, "noisy": noisy, "mixture": denoised, f"{best} components": projections[best]}
figure, panels = plt.subplots(len(rows), 10, figsize=(9, 3.9), layout="constrained")
for line, (name, images) in zip(panels, rows.items()):
    for panel, image in zip(line, images):
        panel.imshow(image.reshape(8, 8), cmap="Greys", vmin=0, vmax=16)
        panel.set(xticks=[], yticks=[])
    line[0].set_ylabel(name, fontsize="small")
plt.show()

# %%
# What to see: the mixture restores broken strokes and an empty background. The projection keeps the noise along its
# directions.
