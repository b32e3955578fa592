"""
A density map of private places, at three budgets
==================================================

Where do the patients of a clinic live? A density estimate of their places answers, and betrays those who live alone.
:class:`~sklowrank.privacy.PrivateKernelDensity` releases it with differential privacy; how blurred the map is depends
on the budget, and on how many they are.
"""

# %%
# Twenty thousand places in a unit square: three towns, and some houses far out.

import matplotlib.pyplot as plt
import numpy as np

from sklowrank.privacy import BudgetError, PrivacyAccountant, PrivateKernelDensity

rng = np.random.default_rng(0)
towns = np.array([[0.25, 0.3], [0.7, 0.65], [0.4, 0.8]])
X = np.vstack([towns[rng.integers(0, 3, 19_900)] + 0.06 * rng.normal(size=(19_900, 2)), rng.random((100, 2))])
X = X.clip(0, 1)
side = np.linspace(0, 1, 60)
grid = np.stack(np.meshgrid(side, side), -1).reshape(-1, 2)


def show(axis, means, title):
    axis.imshow(means.reshape(60, 60), origin="lower", extent=(0, 1, 0, 1), vmin=0, vmax=0.14)
    axis.set(title=title, xticks=[], yticks=[])


# %%
# The purse is shared by all releases about the same people, and refuses before it is overdrawn.

purse = PrivacyAccountant(epsilon=1.0, delta=1e-5)
model = PrivateKernelDensity(epsilon=0.6, bandwidth=0.05, bounds=(0, 1), accountant=purse).fit(X)
print("spent", purse.total())
try:
    model.set_params(bandwidth=0.1, epsilon=0.9).fit(X)
except BudgetError as error:
    print(error)

# %%
# How much is a budget worth? One fit for each, beside the exact map. The bandwidth and the bounds are chosen without
# looking at the places.

figure, axes = plt.subplots(2, 4, figsize=(12, 6.2), layout="constrained")
for row, n in zip(axes, (20_000, 500)):
    rows = rng.permutation(X)[:n]
    exact = np.array([np.exp(-np.square(rows - q).sum(1) / (2 * 0.05**2)).mean() for q in grid])
    show(row[0], exact, f"{n:,} rows, exact")
    for axis, epsilon in zip(row[1:], (0.01, 0.1, 1.0)):
        model = PrivateKernelDensity(epsilon=epsilon, bandwidth=0.05, bounds=(0, 1)).fit(rows)
        means = model.kernel_means(grid)
        show(axis, means, f"epsilon = {epsilon}")
        print(f"{n:6,} rows, epsilon {epsilon:4}: error {np.abs(means - exact).mean():.4f}", end=", ")
        print(f"noise {model.noise_std_ / model.n_samples_:.4f} of a mean kernel of {exact.max():.2f} at most")
plt.show()

# %%
# What to see: with twenty thousand rows a budget of 0.1 shows the towns as they are, and 0.01 is blotched. With five
# hundred rows everything costs forty times as much. Queries cost nothing: the 3,600 points of a map are as private as
# one. The noise is known beforehand, without the data.
