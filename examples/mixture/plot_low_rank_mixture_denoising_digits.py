"""
Clean images: a mixture of flat pieces as a denoiser
====================================================

Images of one kind vary in a few directions about their mean. A mixture of low-rank Gaussians knows the mean and the
directions of each kind, and so the likeliest clean image behind a noisy one. Principal components have the same
directions for all.
"""

# %%
# Handwritten digits of eight by eight pixels. Noise is added to those that were held out.

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
# Fifteen pieces of eight dimensions. The noise that is to be taken off is known; the model's own noise is learnt.

mixture = LowRankGaussianMixture(15, n_dims=8, random_state=0).fit(known)
denoised = mixture.denoise(noisy, noise_std)

# %%
# Principal components, as many as are best for these very images.


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
# Ten of them.

rows = {"clean": clean, "noisy": noisy, "mixture": denoised, f"{best} components": projections[best]}
figure, panels = plt.subplots(len(rows), 10, figsize=(9, 3.9), layout="constrained")
for line, (name, images) in zip(panels, rows.items()):
    for panel, image in zip(line, images):
        panel.imshow(image.reshape(8, 8), cmap="Greys", vmin=0, vmax=16)
        panel.set(xticks=[], yticks=[])
    line[0].set_ylabel(name, fontsize="small")
plt.show()

# %%
# What to see: strokes come back where the noise had broken them, and the background is empty again. The projections
# below keep the noise that lies along their directions.
