"""
One fit, networks of every width
================================

:class:`~sklowrank.neural.MorphableMLPClassifier` is fitted once and then asked for networks of any width of the hidden
layers. Here its accuracy on handwritten digits is compared with that of networks that are trained separately for each
width, and with that of the first units of a plain network.
"""

# %%
# Handwritten digits of eight by eight pixels.

import warnings

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

from sklowrank.neural import MorphableMLPClassifier

warnings.simplefilter("ignore")  # of epochs that end before convergence, and of widths outside of the range
X, y = load_digits(return_X_y=True)
X, X_test, y, y_test = train_test_split(X / 16 - 0.3, y, test_size=0.3, stratify=y, random_state=0)

# %%
# Two fits, one for each way in which weights depend on the width: networks whose units are the first ones of the
# largest network ("nested"), and weights that are smooth functions of the position of a unit ("spectral").

settings = {"standardize": False, "max_iter": 60, "random_state": 0}
models = {form: MorphableMLPClassifier(weight_function=form, **settings).fit(X, y) for form in ("nested", "spectral")}
widths = np.array([4, 8, 12, 16, 20, 24, 32, 40, 48, 56, 64])
curves = {form: model.size_curve(X_test, y_test, widths)[1] for form, model in models.items()}
for form, model in models.items():
    print(f"{form}: {model.n_parameters_} numbers are stored")

# %%
# The network of a width is a plain one: `resized` returns it as a fitted classifier of its own.

small = models["nested"].resized(20)
print(small.network())
print(f"accuracy {small.score(X_test, y_test):.3f} with {small.n_parameters_} parameters")

# %%
# Separate networks of some widths, and the first units of the largest of them.

peers = {
    width: MLPClassifier((width, width), max_iter=60, learning_rate_init=3e-3, random_state=0).fit(X, y)
    for width in (4, 8, 16, 32, 64)
}


def of_first_units(width):
    """Return the accuracy of the first units of both hidden layers of a plain network."""
    W, c = peers[64].coefs_, peers[64].intercepts_
    Z = np.maximum(X_test @ W[0][:, :width] + c[0][:width], 0)
    Z = np.maximum(Z @ W[1][:width, :width] + c[1][:width], 0)
    return np.mean((Z @ W[2][:width] + c[2]).argmax(1) == y_test)


slices = [of_first_units(width) for width in widths]

# %%
# Accuracy against width. The range of the training, 16 to 64, is shaded.

fig, (ax, near) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
for axes in (ax, near):
    axes.axvspan(16, 64, color="0.95")
    for (form, scores), marker in zip(curves.items(), "os"):
        axes.plot(widths, scores, f"{marker}-", label=f"one fit, {form}")
    axes.plot(list(peers), [peer.score(X_test, y_test) for peer in peers.values()], "k*", label="separate networks")
    axes.plot(widths, slices, "^:", color="C3", label="first units of a plain network")
    axes.set(xlabel="width of the hidden layers", ylabel="accuracy on new rows")
near.set(ylim=(0.94, 1.0), title="the same, enlarged")
ax.set(title="Handwritten digits")
ax.legend(frameon=False, loc="lower right")
plt.show()

# %%
# What to see: one fit is accurate at every width of the range. The first units of a plain network are of no use
# without the others. With "nested" larger networks are a little more accurate, with "spectral" all widths are nearly
# the same network. Below the range the accuracy of both falls, while that of a separate network is still high. A
# separate network is as accurate or more at each width, and the better choice where a few sizes are known beforehand.
