"""
A flow on a rolled sheet, from 80 of 1000 vectors
=================================================

Points on a sheet that is rolled tightly, with a flow along the sheet. The flow is known at 80 of the points, with
noise. A Gaussian process on the coordinates takes points of two neighbouring turns for neighbours.
:class:`~sklowrank.manifold.ManifoldVectorFieldRegressor` goes along the sheet, and turns vectors with it.
"""

# %%
# Points, the flow, and labels at 80 of 1000 points. Rows of NaN have no label.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

from sklowrank.manifold import ManifoldVectorFieldRegressor

rng = np.random.default_rng(0)
a = 0.2 / (2 * np.pi)  # turns are 0.2 apart
t, height = np.sqrt(15 * rng.random(1000) + 1) * np.pi, 2 * rng.random(1000)
X = np.c_[a * t * np.cos(t), height, a * t * np.sin(t)]
along = np.c_[np.cos(t) - t * np.sin(t), 0 * t, np.sin(t) + t * np.cos(t)]
along /= np.linalg.norm(along, axis=1, keepdims=True)
length = a * 0.5 * (t * np.sqrt(1 + t**2) + np.arcsinh(t))  # along the sheet
angle = (length + 0.8 * height)[:, None]
flow = np.cos(angle) * along + np.sin(angle) * [0, 1, 0]

known = np.zeros(1000, dtype=bool)
known[rng.choice(1000, 80, replace=False)] = True
y = np.where(known[:, None], flow + 0.1 * rng.normal(size=flow.shape), np.nan)

# %%
# The regressor is given all points. Its predictions are those at the points without a label.

model = ManifoldVectorFieldRegressor(random_state=0).fit(X, y)
mean, std = model.predict(X, return_std=True)
kernel = ConstantKernel() * Matern(nu=1.5) + WhiteKernel(0.01)
plain = GaussianProcessRegressor(kernel, random_state=0).fit(X[known], y[known]).predict(X)


def r2(guess):
    left = ((guess - flow)[~known] ** 2).sum()
    return 1 - left / ((flow - flow.mean(0))[~known] ** 2).sum()


print(f"r2, along the sheet       {r2(mean):.3f}")
print(f"r2, by the coordinates    {r2(plain):.3f}")
print({name: float(round(value, 4)) for name, value in model.kernel_params_.items()})

# %%
# The standard deviation is a fair measure of the error.

standardised = (mean - flow)[~known] / np.maximum(std[~known], 1e-6)
print(f"root mean square of errors in units of the deviation {np.sqrt((standardised**2).mean()):.2f}")

# %%
# The sheet, unrolled for the picture: colours are errors, arrows the flow.

figure, axes = plt.subplots(1, 3, figsize=(12, 4.2), layout="constrained")
shown = {"the flow, and where it is known": flow, "by the coordinates": plain, "along the sheet": mean}
for axis, (title, field) in zip(axes, shown.items()):
    error = np.linalg.norm(field - flow, axis=1)
    parts = (field * along).sum(1), field[:, 1]
    arrows = axis.quiver(length, height, *parts, error, cmap="coolwarm", clim=(0, 1), scale=22, width=0.004)
    axis.set(title=title, xlabel="along the sheet", xticks=[], yticks=[])
axes[0].scatter(length[known], height[known], s=16, facecolors="none", edgecolors="#c0392b")
figure.colorbar(arrows, ax=axes, label="length of the error", shrink=0.8)
plt.show()

# %%
# What to see: by the coordinates there are large errors inside of the sheet, too, in a patch with few labels of its
# own, and wide margins of them at both edges. Along the sheet they are at the edges alone.
