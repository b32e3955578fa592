"""Networks of the latent quantization filter: the one that is trained, and the filter that is kept of it."""

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import nn

from .._nets.layers import linear, standard_units

# Of the encoder's activation below zero: its slopes are at most 1, so that the bound is that of the layers.
_SLOPE = 0.2

# Where the factor of a bounded encoder starts, if the bound is higher: from a much higher start, Adam does not get to
# codes of unit width within a fit.
_FIRST_FACTOR = 4.0

MakeLayer = Callable[[int, int, torch.Generator | None], nn.Module]


def perceptron(
    widths: list[int], generator: torch.Generator | None, *, make: MakeLayer, activation: nn.Module
) -> nn.Sequential:
    """Return layers between widths, with an activation between any two."""
    parts: list[nn.Module] = []
    for n_in, n_out in pairwise(widths):
        parts += [make(n_in, n_out, generator), activation]
    return nn.Sequential(*parts[:-1])


def encoder_layers(widths: list[int], generator: torch.Generator | None, make: MakeLayer = linear) -> nn.Sequential:
    """Return the layers from standardised rows to latent values."""
    return perceptron(widths, generator, make=make, activation=nn.LeakyReLU(_SLOPE))


def decoder_layers(widths: list[int], generator: torch.Generator | None) -> nn.Sequential:
    """Return the layers from codes to standardised rows; `widths` are those of the encoder."""
    return perceptron(widths[::-1], generator, make=linear, activation=nn.ReLU())


def rounded(z: torch.Tensor, step: float) -> torch.Tensor:
    """Return the nearest multiples of `step`, z itself where it is 0; the gradient is that of z."""
    if not step:
        return z
    return step * torch.round(z.detach() / step) + (z - z.detach())


class SpectralLinear(nn.Module):
    """A linear layer whose weight is divided by its spectral norm.

    The norm is followed by one step of power iteration per batch; :meth:`plain_weight` computes it.
    """

    left: torch.Tensor

    def __init__(self, n_in: int, n_out: int, generator: torch.Generator | None):
        super().__init__()
        layer = linear(n_in, n_out, generator)
        self.weight, self.bias = layer.weight, layer.bias
        left = self.weight.new_zeros(n_out)
        if generator is not None:
            left = torch.linalg.svd(self.weight.detach().double(), full_matrices=False).U[:, 0].float()
        self.register_buffer("left", left)

    def forward(self, x):
        W = self.weight
        with torch.no_grad():
            right = nn.functional.normalize(self.left @ W, dim=0)
            if self.training:
                self.left.copy_(nn.functional.normalize(W @ right, dim=0))
        norm = (self.left @ W) @ right
        return nn.functional.linear(x, W / norm.clamp(min=torch.finfo(W.dtype).tiny), self.bias)

    def plain_weight(self) -> torch.Tensor:
        """Return the weight over its norm, in float64."""
        W = self.weight.detach().double()
        return W / torch.linalg.matrix_norm(W, 2).clamp(min=torch.finfo(torch.float32).tiny)


class BoundedEncoder(nn.Module):
    """Layers of norm one, times a number that is learned and at most `bound`."""

    def __init__(self, widths: list[int], generator: torch.Generator | None, bound: float):
        super().__init__()
        self.layers = encoder_layers(widths, generator, SpectralLinear)
        self.share = nn.Parameter(torch.ones((), device="cpu", dtype=torch.float32))
        self.first = min(bound, _FIRST_FACTOR)
        self.most = bound / self.first

    def forward(self, x):
        if self.training:
            with torch.no_grad():
                self.share.clamp_(0.0, self.most)
        return self.first * self.share * self.layers(x)

    def plain(self) -> nn.Sequential:
        """Return the same map as layers of torch."""
        factor = self.first * self.share.detach().clamp(0.0, self.most).double()
        parts: list[nn.Module] = []
        for i, part in enumerate(self.layers):
            if isinstance(part, SpectralLinear):
                layer = linear(part.weight.shape[1], part.weight.shape[0], None)
                last = factor if i == len(self.layers) - 1 else 1.0
                with torch.no_grad():
                    layer.weight.copy_(last * part.plain_weight())
                    layer.bias.copy_(last * part.bias)
                part = layer
            parts.append(part)
        return nn.Sequential(*parts)


class Autoencoder(nn.Module):
    """What is trained: standardised rows and noise of their codes, to latent values and reconstructions."""

    def __init__(self, generator: torch.Generator | None, *, widths: list[int], step: float, lipschitz: float | None):
        super().__init__()
        self.encoder: nn.Module
        if lipschitz is None:
            self.encoder = encoder_layers(widths, generator)
        else:
            self.encoder = BoundedEncoder(widths, generator, lipschitz)
        self.decoder = decoder_layers(widths, generator)
        self.step = step

    def forward(self, x, noise):
        z = self.encoder(x)
        return z, self.decoder(rounded(z + noise, self.step))

    def plain(self) -> dict[str, torch.Tensor]:
        """Return the weights that a :class:`Purifier` has."""
        encoder = self.encoder.plain() if isinstance(self.encoder, BoundedEncoder) else self.encoder
        parts = {"encoder.layers": encoder, "decoder.layers": self.decoder}
        return {f"{part}.{name}": value for part, net in parts.items() for name, value in net.state_dict().items()}


class Encoder(nn.Module):
    """From rows in their own units to codes."""

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(self, widths: list[int], step: float, mean: torch.Tensor, scale: torch.Tensor):
        super().__init__()
        self.layers, self.step = encoder_layers(widths, None), step
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("scale", scale, persistent=False)  # infinite where a column is not read

    def forward(self, x):
        return rounded(self.layers(standard_units(x.to(self.mean.dtype), self.mean, self.scale)), self.step)


class Decoder(nn.Module):
    """From codes to rows in their own units, within bounds."""

    mean: torch.Tensor
    scale: torch.Tensor
    low: torch.Tensor
    high: torch.Tensor

    def __init__(
        self, widths: list[int], mean: torch.Tensor, scale: torch.Tensor, low: torch.Tensor, high: torch.Tensor
    ):
        super().__init__()
        self.layers = decoder_layers(widths, None)
        for name, value in {"mean": mean, "scale": scale, "low": low, "high": high}.items():
            self.register_buffer(name, value, persistent=False)

    def forward(self, codes):
        rows = self.mean + self.scale * self.layers(codes.to(self.mean.dtype))
        return rows.clamp(self.low, self.high)


class Purifier(nn.Module):
    """From rows in their own units to purified rows; the gradient passes the rounding as if there were none."""

    def __init__(self, encoder: Encoder, decoder: Decoder):
        super().__init__()
        self.encoder, self.decoder = encoder, decoder

    def forward(self, x):
        return self.decoder(self.encoder(x))
