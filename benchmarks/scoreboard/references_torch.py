"""References in plain torch, for methods that no installed package has; needs torch when it is imported."""

import copy
from itertools import pairwise

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy, pad


def batches(n, size, generator):
    return torch.randperm(n, generator=generator).split(size)


def trained(module, loss, n_rows, *, rate, epochs, batch_size, seed, decay=0.0, judge=None):
    """Train by AdamW with a rate that falls to zero; `loss` takes row numbers, `judge` chooses the epoch."""
    rows = torch.Generator().manual_seed(seed)
    steps = epochs * -(-n_rows // batch_size)
    best = torch.optim.AdamW(module.parameters(), lr=rate, weight_decay=decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(best, steps)
    module.train()
    lowest, kept = np.inf, None
    for _ in range(epochs):
        for at in batches(n_rows, batch_size, rows):
            best.zero_grad()
            loss(at).backward()
            best.step()
            schedule.step()
        if judge is not None and (now := judge()) < lowest:
            lowest, kept = now, copy.deepcopy(module.state_dict())
    if judge is not None:
        module.load_state_dict(kept)
    return module.eval()


def tensor(X):
    return torch.from_numpy(np.ascontiguousarray(X, dtype=np.float32))


class CouplingFlow:
    """A normalizing flow of eight affine couplings; a fifth of the rows chooses the epoch at which it stops."""

    def __init__(self, seed, epochs=200):
        self.seed, self.epochs = seed, epochs

    def fit(self, X):
        torch.manual_seed(self.seed)
        d, n, X = X.shape[1], len(X) * 4 // 5, tensor(X)
        shapes = [(d, 64), (64, 64), (64, 2 * d)]
        self.net = nn.ModuleList()
        for _ in range(8):
            first, second, last = (nn.Linear(*shape) for shape in shapes)
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
            self.net.append(nn.Sequential(first, nn.GELU(), second, nn.GELU(), last))
        self.masks = torch.stack([(torch.arange(d) + i) % 2 for i in range(8)]).float()

        def judge():
            with torch.no_grad():
                return -float(self.density(X[n:]).mean())

        how = {"rate": 2e-3, "epochs": self.epochs, "batch_size": 128, "seed": self.seed, "decay": 1e-2}
        trained(self.net, lambda at: -self.density(X[at]).mean(), n, judge=judge, **how)
        return self

    def density(self, x):
        total = 0.0
        for part, mask in zip(self.net, self.masks):
            shift, scale = part(x * mask).chunk(2, 1)
            scale = 2 * torch.tanh(scale / 2) * (1 - mask)
            x = x * torch.exp(scale) + shift * (1 - mask)
            total = total + scale.sum(1)
        return total - 0.5 * x.square().sum(1) - 0.5 * x.shape[1] * np.log(2 * np.pi)

    def score(self, X):
        with torch.inference_mode():
            return float(self.density(tensor(X)).mean())


class DenoisingAutoencoder:
    """Rows with noise to rows without, through 12 numbers; noise of 0.2 in units of the pixels' range."""

    def __init__(self, seed, epochs=150):
        self.seed, self.epochs = seed, epochs

    def fit(self, X):
        torch.manual_seed(self.seed)
        d, X = X.shape[1], tensor(X)
        sizes = [d, 128, 128, 12, 128, 128, d]
        layers = [part for pair in pairwise(sizes) for part in (nn.Linear(*pair), nn.ReLU())][:-1]
        del layers[5]  # no activation at the code
        self.net = nn.Sequential(*layers)

        def loss(at):
            return (self.net(X[at] + 0.2 * torch.randn_like(X[at])) - X[at]).square().mean()

        trained(self.net, loss, len(X), rate=4e-3, epochs=self.epochs, batch_size=128, seed=self.seed)
        return self

    def transform(self, X):
        with torch.inference_mode():
            return self.net(tensor(X)).clamp(0, 1).numpy()


class FourierOperator(nn.Module):
    """A Fourier neural operator of four layers."""

    def __init__(self, seed, width=16, modes=6, epochs=15):
        super().__init__()
        torch.manual_seed(seed)
        self.seed, self.epochs, self.modes = seed, epochs, modes
        self.lift, self.plain = nn.Linear(3, width), nn.ModuleList([nn.Conv2d(width, width, 1) for _ in range(4)])
        draws = [torch.randn(2, width, width, modes, modes, 2) / width for _ in range(4)]
        self.waves = nn.ParameterList([nn.Parameter(draw) for draw in draws])
        self.out = nn.Sequential(nn.Linear(width, 128), nn.GELU(), nn.Linear(128, 1))

    def forward(self, x):
        n, h, w, m = *x.shape, self.modes
        place = torch.stack(torch.meshgrid(torch.linspace(0, 1, h), torch.linspace(0, 1, w), indexing="ij"), -1)
        x = self.lift(torch.cat([x[..., None], place.expand(n, h, w, 2)], -1)).permute(0, 3, 1, 2)
        x = pad(x, (0, 4, 0, 4))
        for i, (plain, waves) in enumerate(zip(self.plain, self.waves)):
            F, W = torch.fft.rfft2(x), torch.view_as_complex(waves)
            G = torch.zeros_like(F)
            G[:, :, :m, :m] = torch.einsum("ncxy,cdxy->ndxy", F[:, :, :m, :m], W[0])
            G[:, :, -m:, :m] = torch.einsum("ncxy,cdxy->ndxy", F[:, :, -m:, :m], W[1])
            x = torch.fft.irfft2(G, s=x.shape[-2:]) + plain(x)
            x = nn.functional.gelu(x) if i < 3 else x
        return self.out(x[:, :, :h, :w].permute(0, 2, 3, 1)).squeeze(-1)

    def fit(self, X, y):
        self.at = [(part.mean(0), part.std(0) + 1e-6) for part in (X, y)]
        (mean, scale), A, B = map(tensor, self.at[1]), tensor((X - self.at[0][0]) / self.at[0][1]), tensor(y)

        def loss(at):
            gap = (self(A[at]) * scale + mean - B[at]).flatten(1).norm(dim=1)
            return (gap / B[at].flatten(1).norm(dim=1)).mean()

        return trained(self, loss, len(X), rate=4e-3, epochs=self.epochs, batch_size=16, seed=self.seed)

    def predict(self, X):
        with torch.inference_mode():
            return self(tensor((X - self.at[0][0]) / self.at[0][1])).numpy() * self.at[1][1] + self.at[1][0]


class Slimmable:
    """A network whose first units are one of smaller width: a width is drawn in each step, in PyTorch's own scale."""

    def __init__(self, seed, widths=(16, 20, 32, 64), epochs=100):
        self.seed, self.widths, self.epochs = seed, widths, epochs

    def outputs(self, x, width):
        first, second, last = self.net
        x = torch.relu(x @ first.weight[:width].T + first.bias[:width])
        x = torch.relu(x @ second.weight[:width, :width].T + second.bias[:width])
        return x @ last.weight[:, :width].T + last.bias

    def fit(self, X, y):
        torch.manual_seed(self.seed)
        self.net = nn.ModuleList([nn.Linear(X.shape[1], 64), nn.Linear(64, 64), nn.Linear(64, len(np.unique(y)))])
        X, y, draw = tensor(X), torch.from_numpy(y), np.random.RandomState(self.seed)

        def loss(at):
            return cross_entropy(self.outputs(X[at], draw.choice(self.widths)), y[at])

        trained(self.net, loss, len(X), rate=3e-3, epochs=self.epochs, batch_size=64, seed=self.seed)
        return self

    def predict(self, X, width):
        with torch.inference_mode():
            return self.outputs(tensor(X), width).argmax(1).numpy()


class TurnedConvolutions:
    """A convolutional network on images that are turned at random in each epoch."""

    def __init__(self, seed, epochs=120):
        self.seed, self.epochs = seed, epochs

    def fit(self, X, y):
        torch.manual_seed(self.seed)
        conv, relu, pool = nn.Conv2d, nn.ReLU, nn.MaxPool2d
        layers = [conv(1, 16, 3, padding=1), relu(), pool(2), conv(16, 32, 3, padding=1), relu(), pool(2)]
        self.net = nn.Sequential(*layers, nn.Flatten(), nn.Linear(288, 64), relu(), nn.Linear(64, 10))
        X, y = tensor(X).reshape(-1, 1, 15, 15), torch.from_numpy(y)

        def loss(at):
            angle = 2 * np.pi * torch.rand(len(at))
            turn = torch.stack([angle.cos(), -angle.sin(), 0 * angle, angle.sin(), angle.cos(), 0 * angle], 1)
            grid = nn.functional.affine_grid(turn.reshape(-1, 2, 3), (len(at), 1, 15, 15), align_corners=True)
            return cross_entropy(self.net(nn.functional.grid_sample(X[at], grid, align_corners=True)), y[at])

        trained(self.net, loss, len(X), rate=3e-3, epochs=self.epochs, batch_size=64, seed=self.seed, decay=0.01)
        return self

    def predict(self, X):
        with torch.inference_mode():
            return self.net(tensor(X).reshape(-1, 1, 15, 15)).argmax(1).numpy()


class ExactAttention:
    """Softmax attention of each row to all others, with Gaussian weights of a learned projection to six columns."""

    def __init__(self, seed, steps=200):
        self.seed, self.steps = seed, steps

    def project(self, X):
        Z = X @ self.W.T
        return Z * (2 / Z.norm(dim=1, keepdim=True)).clamp(max=1)

    def attend(self, Q, own):
        logits = -0.5 * torch.cdist(Q, self.project(self.X)).square()
        if own:
            logits = logits.masked_fill(torch.eye(len(Q), dtype=torch.bool), -np.inf)
        return logits.softmax(1) @ self.Y

    def fit(self, X, y):
        self.X, self.Y = tensor(X), torch.eye(int(y.max()) + 1)[torch.from_numpy(y)]
        _, s, Vh = torch.linalg.svd(self.X, full_matrices=False)
        self.W = nn.Parameter(Vh[:6] / s[:6, None] * len(X) ** 0.5)
        best = torch.optim.Adam([self.W], lr=3e-2)
        for _ in range(self.steps):
            best.zero_grad()
            right = (self.attend(self.project(self.X), True) * self.Y).sum(1)
            (-right.clamp(min=1e-6).log().mean()).backward()
            best.step()
        return self

    def predict(self, X):
        with torch.inference_mode():
            return self.attend(self.project(tensor(X)), False).argmax(1).numpy()
