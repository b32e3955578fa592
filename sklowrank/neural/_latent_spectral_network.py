"""The network of latent spectral models: a U-shaped convolutional network with a spectral block at each resolution."""

import math

import torch
from torch import nn

from .._nets.images import convolution

_OUTPUT_WIDTH = 128  # of the hidden layer that ends the network


def level_channels(width: int, n_levels: int) -> list[int]:
    """Return the channels of each level: they double, but for the last one."""
    return [width * 2 ** min(level, max(n_levels - 2, 0)) for level in range(n_levels)]


class LatentSpectralNet(nn.Module):
    """Fields (n, channels_in, H, W) to fields (n, channels_out, H, W).

    Weights are drawn from `generator`, on the CPU; without one they are to be loaded. An axis of one point is not
    convolved over.
    """

    def __init__(
        self,
        generator: torch.Generator | None,
        *,
        grid: tuple[int, int],
        channels_in: int,
        channels_out: int,
        width: int,
        n_levels: int,
        n_basis: int,
        n_tokens: int,
        n_heads: int,
        patch_size: int,
    ):
        super().__init__()
        kernel = tuple(3 if size > 1 else 1 for size in grid)
        channels = level_channels(width, n_levels)
        self.lift = convolution(channels_in + 2, width, generator, size=1)
        self.down = nn.ModuleList(
            _double(n_in, n, n, kernel, generator) for n_in, n in zip([width, *channels], channels)
        )
        self.spectral = nn.ModuleList(
            SpectralBlock(n, generator, n_basis=n_basis, n_tokens=n_tokens, n_heads=n_heads, patch_size=patch_size)
            for n in channels
        )
        self.up = nn.ModuleList(
            _double(2 * n, n, n_out, kernel, generator) for n, n_out in zip(channels[:-1], [width, *channels])
        )
        self.output = nn.Sequential(
            convolution(width, width, generator, size=1),
            convolution(width, _OUTPUT_WIDTH, generator, size=1),
            nn.GELU(),
            convolution(_OUTPUT_WIDTH, channels_out, generator, size=1),
        )

    def forward(self, x):
        x = torch.cat([x, _coordinates(x)], 1)
        x = self.lift(x.contiguous(memory_format=torch.channels_last))  # in which convolutions take half the time
        levels = []
        for i, layers in enumerate(self.down):
            x = layers(nn.functional.max_pool2d(x, 2, ceil_mode=True) if i else x)
            levels.append(x)
        levels = [block(x) for block, x in zip(self.spectral, levels)]
        x = levels.pop()
        for layers in reversed(self.up):
            finer = levels.pop()
            wide = nn.functional.interpolate(x, finer.shape[2:], mode="bilinear", align_corners=True)
            x = layers(torch.cat([finer, wide], 1))
        return self.output(x)


class SpectralBlock(nn.Module):
    """Patches of a field to tokens, by attention; a trigonometric series of each token's values; and back.

    All patches are alike. Where the last ones go beyond the field, the points that are missing are left out.
    """

    def __init__(self, channels: int, generator, *, n_basis: int, n_tokens: int, n_heads: int, patch_size: int):
        super().__init__()
        self.patch_size, self.n_heads = patch_size, n_heads
        self.queries = _uniform((n_heads, n_tokens, channels // n_heads), 1 / channels, generator)
        self.basis = _uniform((2, channels, n_basis), 1 / channels, generator)
        self.keys_values = convolution(channels, 2 * channels, generator, size=1)
        self.point_queries = convolution(channels, channels, generator, size=1)

    def forward(self, x):
        patches = Patches(x.shape, self.patch_size, self.n_heads)
        keys, values = (patches.of(part) for part in self.keys_values(x).chunk(2, 1))
        scores = self.queries @ keys.flatten(2)
        shares = patches.without_missing(scores.unflatten(2, keys.shape[2:])).softmax(2)  # over the points
        tokens = (shares[:, :, None] * values[:, None]).sum(3) + self.queries[..., None]
        tokens = self.series(tokens)
        scores = (tokens[:, :, :, None] * patches.of(self.point_queries(x))[:, None]).sum(2)
        shares = scores.softmax(1)  # over the tokens
        return x + patches.field((shares[:, :, None] * tokens[:, :, :, None]).sum(1))

    def series(self, tokens):
        """Return tokens (n_heads, n_tokens, channels / n_heads, patches) plus the series of their values."""
        n_heads, n_tokens, width, _ = tokens.shape
        _, channels, n_basis = self.basis.shape
        orders = torch.arange(n_basis, device=tokens.device, dtype=tokens.dtype) * (math.pi / n_basis)
        angles = tokens.transpose(1, 2).reshape(channels, 1, -1) * orders[:, None]
        terms = torch.cat([angles.sin(), angles.cos()], 1)
        sums = self.basis.transpose(0, 1).flatten(1)[:, None] @ terms
        return tokens + sums.reshape(n_heads, width, n_tokens, -1).transpose(1, 2)


class Patches:
    """How fields of a shape (n, C, H, W) are cut into patches, whose channels are divided among heads."""

    def __init__(self, shape: torch.Size, size: int, n_heads: int):
        self.shape, self.n_heads = shape, n_heads
        self.size = h, w = tuple(min(size, n) for n in shape[2:])
        self.grid = -(-shape[2] // h), -(-shape[3] // w)  # of patches

    def of(self, x):
        """Return the patches (n_heads, C / n_heads, points, patches) of fields; missing points are zero."""
        (n, _, H, W), (h, w), (rows, columns) = self.shape, self.size, self.grid
        if (rows * h, columns * w) != (H, W):
            x = nn.functional.pad(x, (0, columns * w - W, 0, rows * h - H))
        x = x.reshape(n, self.n_heads, -1, rows, h, columns, w)
        return x.permute(1, 2, 4, 6, 0, 3, 5).reshape(self.n_heads, -1, h * w, n * rows * columns)

    def field(self, patches):
        """Return patches as fields, without the missing points."""
        (n, C, H, W), (h, w), (rows, columns) = self.shape, self.size, self.grid
        x = patches.reshape(self.n_heads, -1, h, w, n, rows, columns).permute(4, 0, 1, 5, 2, 6, 3)
        return x.reshape(n, C, rows * h, columns * w)[:, :, :H, :W]

    def without_missing(self, scores):
        """Return scores (n_heads, n_tokens, points, patches) in which points beyond the field get no share."""
        (n, _, H, W), (h, w), (rows, columns) = self.shape, self.size, self.grid
        if (rows * h, columns * w) == (H, W):
            return scores
        down = torch.arange(rows * h, device=scores.device, dtype=torch.int64).reshape(rows, h) < H
        across = torch.arange(columns * w, device=scores.device, dtype=torch.int64).reshape(columns, w) < W
        there = down.T[:, None, :, None] & across.T[None, :, None, :]  # (h, w, rows, columns)
        return scores.masked_fill(~there.flatten(0, 1).flatten(1).repeat(1, n), -math.inf)


class BatchNorm(nn.BatchNorm2d):
    """Batch normalisation that trains on a single point too, by the running statistics."""

    def forward(self, x):
        if self.training and x.numel() == x.shape[1]:
            return nn.functional.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        return super().forward(x)


def _double(n_in, n_between, n_out, kernel, generator):
    layers = []
    for a, b in ((n_in, n_between), (n_between, n_out)):
        norm = BatchNorm(b, device="cpu", dtype=torch.float32)
        layers += [convolution(a, b, generator, size=kernel, bias=False), norm, nn.ReLU()]
    return nn.Sequential(*layers)


def _uniform(shape, high, generator):
    weights = torch.zeros(shape, device="cpu", dtype=torch.float32)
    if generator is not None:
        weights.uniform_(0, high, generator=generator)
    return nn.Parameter(weights)


def _coordinates(x):
    """Return the coordinates, 0 to 1, of each point as two channels (n, 2, H, W)."""
    n, _, *grid = x.shape
    axes = (torch.linspace(0, 1, size, device=x.device, dtype=x.dtype) for size in grid)
    return torch.stack(torch.meshgrid(*axes, indexing="ij")).expand(n, -1, -1, -1)
