"""The network of a latent density: a decoder of normal coordinates, and an encoder that proposes them."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn

from .._nets.layers import Standardized, mlp

_FIRST_LOG_NOISE = -1.0
_LOG_VARIANCES = (-12.0, 3.0)  # limits of what the encoder proposes


class Shape(NamedTuple):
    """The arguments of the network."""

    n_features: int
    n_components: int
    hidden_layer_sizes: list[int]
    activation: str
    noise: float | None  # standard deviation of the decoder; None where it is learned
    min_noise: float


class LatentDensity(nn.Module):
    """The density of f(z) + noise * e with standard normal z and e, for standardised rows.

    The decoder is f. The encoder gives mean and log-variance of the latent coordinates of a row, from which importance
    draws come.
    """

    def __init__(
        self,
        generator: torch.Generator | None,
        *,
        n_features: int,
        n_components: int,
        hidden_layer_sizes: Sequence[int],
        activation: str,
        noise: float | None,
        min_noise: float,
    ):
        super().__init__()
        layers = {"hidden_layer_sizes": hidden_layer_sizes, "activation": activation}
        mirrored = {"hidden_layer_sizes": hidden_layer_sizes[::-1], "activation": activation}
        self.encoder = mlp((n_features,), 2 * n_components, generator, **layers)
        self.decoder = mlp((n_components,), n_features, generator, **mirrored)
        self.fixed, self.least = noise, min_noise
        if noise is None:
            self.log_noise = nn.Parameter(torch.tensor(_FIRST_LOG_NOISE, dtype=torch.float32, device="cpu"))

    def noise(self) -> torch.Tensor | float:
        """Return the standard deviation of the decoder's noise: above the least one, which it approaches smoothly."""
        return self.log_noise.exp() + self.least if self.fixed is None else self.fixed

    def forward(self, x: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
        """Return a lower bound of the log density of rows x (b, n_features), by importance draws.

        `draws` (b, K, n_components) are standard normal; (1, K, n_components) are the same for all rows. The bound is
        the logarithm of the mean of K weights; its mean over draws grows with K to the log density.
        """
        mean, log_variance = self.encoder(x)[:, None].chunk(2, 2)
        log_variance = log_variance.clamp(*_LOG_VARIANCES)
        z = mean + (log_variance / 2).exp() * draws
        noise = torch.as_tensor(self.noise(), dtype=x.dtype, device=x.device)
        misfit = ((x[:, None] - self.decoder(z)) / noise).square().sum(2)
        log_weights = (draws.square().sum(2) + log_variance.sum(2) - z.square().sum(2) - misfit) / 2
        constant = x.shape[1] * (noise.log() + math.log(2 * math.pi) / 2) + math.log(z.shape[1])
        return log_weights.logsumexp(1) - constant


class LogDensity(nn.Module):
    """The log density of rows, by draws that are the same for all."""

    def __init__(self, density: LatentDensity, draws: torch.Tensor):
        super().__init__()
        self.density, self.draws = density, draws

    def forward(self, x):
        return self.density(x, self.draws[None])


class Rescaled(nn.Module):
    """A network and what takes its outputs to their own units."""

    def __init__(self, network: nn.Module, mean: torch.Tensor, scale: torch.Tensor):
        super().__init__()
        self.register_buffer("mean", mean.float())
        self.register_buffer("scale", scale.float())
        self.network = network

    def forward(self, z):
        return self.network(z) * self.scale + self.mean


class Autoencoder(nn.Module):
    """Encoder and decoder for rows in their own units; together they give the row that the decoder makes of a row."""

    def __init__(self, density: LatentDensity, mean: torch.Tensor, scale: torch.Tensor):
        super().__init__()
        self.encoder = Standardized(density.encoder, mean, scale)
        self.decoder = Rescaled(density.decoder, mean, scale)

    def forward(self, x):
        return self.decoder(self.encoder(x).chunk(2, 1)[0])
