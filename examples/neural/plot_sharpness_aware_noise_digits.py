"""
Flat minima and noisy digits
============================

Sharpness-aware minimisation takes its steps by the gradient at perturbed weights, which leads to flatter minima of the
loss than plain training. Here :class:`~sklowrank.neural.SharpnessAware` trains a
:class:`~sklowrank.neural.NetworkClassifier`, and flatness is measured in two ways: how much the loss on training rows
rises along random directions from the fitted weights, and how much accuracy falls when noise is added to the images.
"""

# %%
# Handwritten digits of eight by eight pixels: half of them to train on.

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from sklowrank.neural import NetworkClassifier, SharpnessAware

X, y = load_digits(return_X_y=True)
X = (X / 16 - 0.3).astype(np.float32)
X, X_test, y, y_test = train_test_split(X, y, train_size=0.5, stratify=y, random_state=0)

# %%
# The same network three times: plain training by stochastic gradient descent with momentum, sharpness-aware steps of a
# fixed radius, and the default, whose radius is measured at each step: how much the outputs change under noise in the
# inputs. A fixed radius has to be tuned.

rules = {"plain": None, "radius 0.05 (SAM)": SharpnessAware(0.05), "radius measured": SharpnessAware()}
models = {}
for name, rule in rules.items():
    models[name] = NetworkClassifier(
        (64, 64),
        training=rule,
        net_params={"optimizer": torch.optim.SGD, "optimizer__momentum": 0.9},
        learning_rate=0.05,
        batch_size=32,
        max_iter=40,
        tol=0,
        standardize=False,
        random_state=0,
    ).fit(X, y)
    print(f"{name}: accuracy {models[name].score(X_test, y_test):.3f}")

# %%
# Accuracy on the other half with noise of rising strength in the pixels, a mean over five draws.

strengths = np.linspace(0, 0.4, 9)


def accuracy(model, strength):
    rng = np.random.default_rng(0)
    draws = (X_test + rng.normal(scale=strength, size=X_test.shape).astype(np.float32) for _ in range(5))
    return np.mean([model.score(noisy, y_test) for noisy in draws])


under_noise = {name: [accuracy(model, s) for s in strengths] for name, model in models.items()}

# %%
# The loss on training rows along random directions from the fitted weights. In every layer a direction has the norm of
# the layer's weights, so that networks of different scale can be compared.

distances = np.linspace(-0.5, 0.5, 21)
rows, labels = torch.from_numpy(X), torch.from_numpy(y)


@torch.inference_mode()
def losses(model, seed):
    generator = torch.Generator().manual_seed(seed)
    net = model.network()
    weights = {name: p.clone() for name, p in net.named_parameters()}
    directions = {name: torch.randn(p.shape, generator=generator) for name, p in weights.items()}
    directions = {name: d * weights[name].norm() / d.norm() for name, d in directions.items()}
    found = []
    for t in distances:
        net.load_state_dict({name: p + t * directions[name] for name, p in weights.items()})
        found.append(float(torch.nn.functional.cross_entropy(net(rows), labels)))
    return found


along = {name: [losses(model, seed) for seed in range(10)] for name, model in models.items()}

# %%
# Both, and the radius of each epoch.

figure, (left, middle, right) = plt.subplots(1, 3, figsize=(11, 3.4), layout="constrained")
for name, model in models.items():
    left.plot(distances, np.mean(along[name], axis=0), label=name)
    middle.plot(strengths, under_noise[name], label=name)
    right.plot(model.training_.get("radius_curve", np.zeros(model.n_iter_)), label=name)
left.set(xlabel="distance, relative to the weights", ylabel="loss on training rows", yscale="log")
middle.set(xlabel="standard deviation of the noise", ylabel="accuracy on new rows")
right.set(xlabel="epoch", ylabel="mean radius")
middle.legend(frameon=False)
plt.show()

# %%
# What to see: at half the norm of the weights along a random direction, the loss of plain training is fifty times that
# at the weights, and the loss of training with the measured radius five times, and lower. At the weights themselves
# plain training has the lower loss. Under noise of standard deviation 0.25 its accuracy is 0.87, and 0.89 with the
# measured radius. That radius starts near zero and grows as outputs become sensitive to small changes of inputs.
