"""Networks that are adapted, and what adapters are compared with; needs torch when it is imported."""

import copy
import pickle
import time
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
from sklearn.model_selection import train_test_split
from skorch import NeuralNetClassifier
from torch import nn
from torch.nn.utils.parametrize import register_parametrization

from benchmarks.data import bundled

EPOCHS, BATCH = 60, 64


class Images(nn.Module):
    """Three convolutions and a linear layer for 8 x 8 images: 15 338 parameters."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 16, 3, padding=1), nn.Conv2d(16, 32, 3, padding=1)
        self.conv3, self.output = nn.Conv2d(32, 32, 3, padding=1), nn.Linear(128, 10)

    def forward(self, x):
        x = torch.relu(self.conv2(torch.relu(self.conv1(x.reshape(-1, 1, 8, 8)))))
        x = torch.relu(self.conv3(nn.functional.max_pool2d(x, 2)))
        return self.output(nn.functional.adaptive_avg_pool2d(x, 2).flatten(1))


def wide(width=128):
    """Two hidden layers: 26 122 parameters with 128 units each."""
    layers = [("wide1", nn.Linear(64, width)), ("relu1", nn.ReLU()), ("wide2", nn.Linear(width, width))]
    return nn.Sequential(OrderedDict([*layers, ("relu2", nn.ReLU()), ("output", nn.Linear(width, 10))]))


def trained(build, X, y, seed, epochs):
    """A skorch net, fitted by AdamW with weight decay 0.01."""
    torch.manual_seed(seed)
    net = NeuralNetClassifier(
        build, criterion=nn.CrossEntropyLoss, optimizer=torch.optim.AdamW, optimizer__weight_decay=0.01, lr=2e-3,
        max_epochs=epochs, batch_size=BATCH, iterator_train__shuffle=True, train_split=None, verbose=0,
    )  # fmt: skip
    return net.fit(X, y)


def stored(folder, build, epochs, seed):
    """The network of a seed for digits as they are: trained once, and read by the processes that come after."""
    path = Path(folder) / f"{seed}.pickle"
    if not path.exists():
        X, _, y, _ = sources(seed)
        path.write_bytes(pickle.dumps(trained(build, X, y, seed, epochs)))
    return pickle.loads(path.read_bytes())


def turned(X):
    """Images turned by 90 degrees, dark and bright exchanged."""
    return (1 - np.rot90(X.reshape(-1, 8, 8), axes=(1, 2))).reshape(-1, 64).astype(np.float32).copy()


def shifted(X):
    """Images moved to the right by one pixel."""
    return np.roll(X.reshape(-1, 8, 8), 1, axis=2).reshape(-1, 64)


def gained(X, seed):
    """Each pixel times a number between 0.1 and 1.9."""
    return X * np.random.default_rng(seed).uniform(0.1, 1.9, 64).astype(np.float32)


def sources(seed):
    """Digits on which networks are trained, and the others."""
    X, y = bundled("digits")
    return train_test_split((X / 16).astype(np.float32), y, test_size=0.6, random_state=seed, stratify=y)


def few(X, y, n_rows, seed):
    """Some rows to adapt to, of each class its share, and the others."""
    return train_test_split(X, y, train_size=n_rows, random_state=seed, stratify=y)


def accuracy(module, X, y):
    with torch.no_grad():
        return float(np.mean(module.eval()(torch.from_numpy(X)).argmax(1).numpy() == y))


def tuned(module, X, y, parameters, rate, seed):
    """Train some parameters of a module; return it and the seconds."""
    X, y = torch.from_numpy(X), torch.from_numpy(y)
    generator = torch.Generator().manual_seed(seed)
    start = time.process_time()
    optimizer = torch.optim.AdamW(list(parameters), lr=rate, weight_decay=0.0)
    module.eval()
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(X), generator=generator).split(BATCH):
            optimizer.zero_grad()
            nn.functional.cross_entropy(module(X[rows]), y[rows]).backward()
            optimizer.step()
    return module, time.process_time() - start


class Flattened(nn.Module):
    """LoRA: a weight of any shape, flattened to outputs x rest, plus B A."""

    def __init__(self, weight, rank, seed):
        super().__init__()
        n_out, rest = weight.flatten(1).shape
        draws = torch.randn(rank, rest, generator=torch.Generator().manual_seed(seed))
        self.A, self.B = nn.Parameter(draws / rest**0.5), nn.Parameter(torch.zeros(n_out, rank))

    def forward(self, weight):
        return weight + (self.B @ self.A).reshape(weight.shape)


class Gains(nn.Module):
    """IA3: a factor for each output."""

    def __init__(self, weight):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(len(weight), 1))

    def forward(self, weight):
        return weight * self.gain


def baseline(net, kind, X, y, seed, *, layers=(), rank=1, rate=1e-2):
    """Adapt a copy of a fitted net in a plain way; return its module, seconds, and number of trained parameters."""
    module = copy.deepcopy(net.module_).requires_grad_(False)
    parameters = []
    if kind == "full":
        parameters = list(module.requires_grad_(True).parameters())
    if "head" in kind:
        parameters += module.output.requires_grad_(True).parameters()
    if "LoRA" in kind or "gains" in kind:
        for name in layers:
            layer = module.get_submodule(name)
            update = Flattened(layer.weight, rank, seed) if "LoRA" in kind else Gains(layer.weight)
            register_parametrization(layer, "weight", update)
            parameters += update.parameters()
    module, seconds = tuned(module, X, y, parameters, rate, seed)
    return module, seconds, sum(p.numel() for p in parameters)
