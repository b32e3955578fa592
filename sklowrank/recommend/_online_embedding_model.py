"""The model of one batch: outputs, gradients, and the steps of Adagrad and Adam; tensors in, tensors out.

An identifier and a numeric column each have a row of `n_outputs` weights and `n_components` entries of a vector. What a
batch learns is computed on the distinct rows that it touches, so that its cost does not depend on how many there are.
"""

from itertools import pairwise
from typing import NamedTuple

import torch
from torch.nn import functional

INITIAL_SQUARES = 0.1  # where Adagrad's sums start
_BETAS, _EPS = (0.9, 0.999), 1e-8  # of Adam


class Shape(NamedTuple):
    """What cannot change once a stream has begun."""

    interaction: str
    n_components: int  # 0 where the interaction is "linear"
    n_outputs: int
    hidden_layer_sizes: tuple[int, ...]
    n_identifiers: int  # columns
    n_numeric: int
    sparse: bool

    @property
    def width(self):
        """Length of a row."""
        return self.n_outputs + self.n_components

    @property
    def has_head(self):
        """Whether each output weighs the entries of the interaction; a single one adds them."""
        return self.n_outputs > 1 and self.n_components > 0

    @property
    def has_network(self):
        """Whether a multilayer perceptron sees the vectors of a row side by side, or their sum where X is sparse."""
        return self.interaction == "deepfm" and self.n_components > 0


class Batch(NamedTuple):
    """Rows of X, by the distinct rows of the store that they touch."""

    slots: torch.Tensor  # (n, n_identifiers), or (n_cells,): positions among the distinct rows
    Z: torch.Tensor  # (n, n_numeric), standardised
    cells: torch.Tensor | None = None  # (n_cells, 1): weights of the identifiers of a sparse matrix
    samples: torch.Tensor | None = None  # (n_cells,): the row of X of each

    def summed(self, parts):
        """Return sums (n, width) of what stands by identifier, (n, n_identifiers, width) or (n_cells, width)."""
        if self.samples is None:
            return parts.sum(1)
        return parts.new_zeros(len(self.Z), parts.shape[1]).index_add_(0, self.samples, parts)

    def spread(self, flow, n_distinct):
        """Return sums (n_distinct, width) of what rows of X (n, width) send to each distinct row."""
        if self.samples is None:
            return self._gathered(flow.repeat_interleave(self.slots.shape[1], dim=0), n_distinct)
        return self._gathered(flow[self.samples] * self.cells, n_distinct)

    def spread_squares(self, flow, n_distinct):
        """Return the same with the weights of identifiers squared."""
        return self._gathered(flow[self.samples] * self.cells.square(), n_distinct)

    def _gathered(self, parts, n_distinct):
        return parts.new_zeros(n_distinct, parts.shape[1]).index_add_(0, self.slots.reshape(-1), parts)


class Pass(NamedTuple):
    """What a forward pass leaves for the backward pass."""

    outputs: torch.Tensor  # (n, n_outputs)
    sums: torch.Tensor  # (n, n_components): of vectors, weighted
    pairs: torch.Tensor | None  # (n, n_components): products of two fields, summed over all pairs of fields
    joined: torch.Tensor | None  # what the network sees


# New weights


def new_dense(shape: Shape, numeric_vectors, ws) -> dict[str, torch.Tensor]:
    """Return the weights that no identifier owns: of numeric columns, and, where there are any, head and network."""
    zeros = torch.zeros(1, shape.n_outputs, device=ws.device, dtype=ws.dtype)
    dense = {"intercept": zeros[0]}
    if shape.n_numeric:
        dense["numeric"] = torch.cat([zeros.expand(shape.n_numeric, -1), numeric_vectors], 1)
    if shape.has_head:
        dense["head"] = ws.randn(shape.n_components, shape.n_outputs)
    if shape.has_network:
        fields = 1 if shape.sparse else shape.n_identifiers + shape.n_numeric
        sizes = [fields * shape.n_components, *shape.hidden_layer_sizes, shape.n_outputs]
        for i, (m, n) in enumerate(pairwise(sizes)):
            dense[f"layer_{i}"] = ws.randn(m, n) * (2 / m) ** 0.5
            dense[f"bias_{i}"] = torch.zeros(n, device=ws.device, dtype=ws.dtype)
    return dense


def new_moments(dense) -> dict[str, torch.Tensor]:
    """Return what the steps of dense weights remember: sums of squares for Adagrad, two moments for Adam."""
    moments = {}
    for name, weights in dense.items():
        if by_adagrad(name):
            moments[f"{name}_squares"] = torch.full_like(weights, INITIAL_SQUARES)
        else:
            moments[f"{name}_mean"], moments[f"{name}_square"] = torch.zeros_like(weights), torch.zeros_like(weights)
    return moments


def by_adagrad(name) -> bool:
    """Return whether dense weights of this name learn as those of identifiers do, and not by Adam."""
    return name in ("intercept", "numeric")


# Forward


def forward(distinct, batch: Batch, dense, shape: Shape) -> Pass:
    """Return the outputs of a batch; `distinct` (n_distinct, width) are the rows that it touches, zeros for unknown."""
    k = shape.n_outputs
    parts = distinct[batch.slots]
    parts = parts if batch.cells is None else parts * batch.cells
    totals = batch.summed(parts)
    squares = batch.summed(parts[..., k:].square()) if shape.n_components else None
    if shape.n_numeric:
        totals = totals + batch.Z @ dense["numeric"]
        if shape.n_components:
            squares = squares + batch.Z.square() @ dense["numeric"][:, k:].square()
    outputs, sums, pairs = dense["intercept"] + totals[:, :k], totals[:, k:], None
    if shape.n_components:
        pairs = (sums.square() - squares) / 2
        outputs = outputs + (pairs @ dense["head"] if shape.has_head else pairs.sum(1, keepdim=True))
    if not shape.has_network:
        return Pass(outputs, sums, pairs, None)
    joined = sums if shape.sparse else side_by_side(parts[..., k:], batch, dense, k)
    return Pass(outputs + _perceptron(joined, dense), sums, pairs, joined)


def side_by_side(vectors, batch: Batch, dense, n_outputs):
    """Return the vectors (n, n_identifiers, k) of each row, and those of numeric columns times their values, joined."""
    if "numeric" in dense:
        vectors = torch.cat([vectors, batch.Z[:, :, None] * dense["numeric"][:, n_outputs:]], 1)
    return vectors.flatten(1)


def _perceptron(inputs, dense):
    n_layers = sum(name.startswith("layer_") for name in dense)
    for i in range(n_layers):
        inputs = torch.addmm(dense[f"bias_{i}"], inputs, dense[f"layer_{i}"])
        inputs = inputs.relu() if i < n_layers - 1 else inputs
    return inputs


# Loss


def losses(kind, outputs, y, weights=None):
    """Return the sum of the losses of rows, and its derivative by the outputs (n, n_outputs).

    y are numbers, (n, 1), and for a "softmax" positions of classes, (n,); weights are (n, 1).
    """
    if kind == "logistic":
        loss = functional.binary_cross_entropy_with_logits(outputs, y, weights, reduction="sum")
        slope = outputs.sigmoid() - y
    elif kind == "squared":
        slope = outputs - y
        loss = (slope.square() if weights is None else slope.square() * weights).sum() / 2
    else:
        loss = functional.cross_entropy(outputs, y, reduction="none")
        loss = (loss if weights is None else loss * weights[:, 0]).sum()
        slope = outputs.softmax(1)
        slope[torch.arange(len(y), device=y.device), y] -= 1
    return loss, slope if weights is None else slope * weights


# Backward


def gradients(slope, distinct, batch: Batch, found: Pass, dense, shape: Shape):
    """Return the gradients of the distinct rows, each the sum over all of its places, and those of dense weights."""
    k, n_distinct, by_name = shape.n_outputs, len(distinct), {"intercept": slope.sum(0)}
    slope_of_pairs = slope @ dense["head"].mT if shape.has_head else slope  # (n, n_components), or 1 for all of them
    flow = torch.cat([slope, slope_of_pairs * found.sums], 1) if shape.n_components else slope
    grad = batch.spread(flow, n_distinct)
    if shape.n_components:
        if batch.cells is not None:
            own = batch.spread_squares(slope_of_pairs, n_distinct)
        else:
            own = batch.spread(slope_of_pairs, n_distinct) if shape.has_head else grad[:, :k]
        grad[:, k:].addcmul_(own, distinct[:, k:], value=-1)
    if shape.n_numeric:
        by_name["numeric"] = batch.Z.mT @ flow
        if shape.n_components:
            by_name["numeric"][:, k:] -= (batch.Z.square().mT @ slope_of_pairs) * dense["numeric"][:, k:]
    if shape.has_head:
        by_name["head"] = found.pairs.mT @ slope
    if shape.has_network:
        through, of_layers = _through_network(slope, found.joined, dense)
        by_name |= of_layers
        grad, by_name = _added(through, grad, by_name, batch, shape, n_distinct)
    return grad, by_name


def _through_network(slope, joined, dense):
    """Return the gradients of what the network saw, and of its layers."""
    names = [name for name in dense if name.startswith(("layer_", "bias_"))]
    with torch.enable_grad():
        joined = joined.detach().requires_grad_()
        layers = {name: dense[name].detach().requires_grad_() for name in names}
        outputs = _perceptron(joined, layers)
        through, *found = torch.autograd.grad(outputs, [joined, *layers.values()], slope)
    return through, dict(zip(names, found))


def _added(through, grad, by_name, batch, shape, n_distinct):
    """Add the gradients of what the network saw to those of the rows it came from."""
    k, n = shape.n_outputs, len(batch.Z)
    if shape.sparse:
        grad[:, k:] += batch.spread(through, n_distinct)
        return grad, by_name
    through = through.reshape(n, -1, shape.n_components)
    slots = batch.slots.reshape(-1)
    grad[:, k:].index_add_(0, slots, through[:, : shape.n_identifiers].reshape(len(slots), shape.n_components))
    if shape.n_numeric:
        by_name["numeric"][:, k:] += torch.einsum("nq,nqk->qk", batch.Z, through[:, shape.n_identifiers :])
    return grad, by_name


# Steps


def adagrad(weights, squares, grad, learning_rate):
    """Return weights and sums of squares after a step of Adagrad."""
    squares = torch.addcmul(squares, grad, grad)
    return torch.addcdiv(weights, grad, squares.sqrt(), value=-learning_rate), squares


def step_dense(dense, moments, by_name, turn, rates) -> None:
    """Make a step of all dense weights, in place; `turn` counts from 1, `rates` are those of Adagrad and of Adam."""
    for name, grad in by_name.items():
        weights = dense[name]
        if by_adagrad(name):
            squares = moments[f"{name}_squares"].addcmul_(grad, grad)
            weights.addcdiv_(grad, squares.sqrt(), value=-rates[0])
            continue
        mean, square = moments[f"{name}_mean"], moments[f"{name}_square"]
        mean.lerp_(grad, 1 - _BETAS[0])
        square.mul_(_BETAS[1]).addcmul_(grad, grad, value=1 - _BETAS[1])
        scale = (1 - _BETAS[1] ** turn) ** 0.5
        weights.addcdiv_(mean, square.sqrt() / scale + _EPS, value=-rates[1] / (1 - _BETAS[0] ** turn))
