"""
Number of components of an imputer: wine
========================================

Penalised alternating least squares needs the right penalty and the right number of components. The default inference of
:class:`~sklowrank.impute.MatrixCompletionImputer` estimates the variance of each component together with the noise, so
that unneeded components are pruned and no penalty has to be tuned.
"""

# %%
# The chemical analyses of 178 wines, with 30 % of the cells hidden.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_wine

from sklowrank.impute import MatrixCompletionImputer

whole = load_wine().data
hidden = np.random.default_rng(0).random(whole.shape) < 0.3
table = np.where(hidden, np.nan, whole)


def error(**settings):
    """Root mean squared error on the hidden cells, each column in units of its standard deviation."""
    filled = MatrixCompletionImputer(random_state=0, **settings).fit_transform(table)
    return np.sqrt(np.mean(((filled - whole) / whole.std(0))[hidden] ** 2))


# %%
# The default, and penalised least squares at three penalties, for each number of components.

widths = range(1, 13)
default = [error(n_components=k) for k in widths]
plain = {alpha: [error(n_components=k, inference="map", alpha=alpha) for k in widths] for alpha in (0.1, 1.0, 5.0)}

# %%
# The number of components in use, of twelve.

imputer = MatrixCompletionImputer(12, random_state=0).fit(table)
print(f"{imputer.n_components_effective_} of 12 components are in use")

# %%

figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
share = np.sort(imputer.component_variance_)[::-1] / imputer.component_variance_.max()
left.bar(widths, np.maximum(share, 2e-4), color=np.where(share > 1e-3, "#0f766e", "0.75"))
left.set(yscale="log", ylim=(1e-4, 2), xlabel="component, of 12 allowed", ylabel="component_variance_ over the largest")
right.plot(widths, default, "o-", color="#0f766e", label="default")
for (alpha, errors), style in zip(plain.items(), ("^:", "s-.", "d--")):
    right.plot(widths, errors, style, color="#c08a3e", label=f"inference='map', alpha={alpha:g}")
right.set(xlabel="n_components", ylabel="error on hidden cells")
figure.legend(loc="outside upper right", ncols=4, frameon=False)
plt.show()

# %%
# What to see: on the left, unneeded components (grey) are pruned. On the right, the error of penalised least squares
# depends on the penalty and on the number of components; that of the default on neither.
