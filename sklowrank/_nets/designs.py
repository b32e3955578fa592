"""Estimators whose network is the method's own: how it is built, its training, its stored weights.

:mod:`.estimating` does the same for networks that users name by `hidden_layer_sizes` and `module`.
"""

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from .._core.fitted import fitted_attributes
from .._core.iterate import drive
from .._core.workspace import Workspace
from .architecture import as_numpy, load_weights
from .batches import Batches
from .estimating import Fitted
from .randomness import Randomness
from .schedules import Schedule
from .training import Training, train


class Design(NamedTuple):
    """How a network is built, as plain data: a class of modules and its arguments.

    The class is called with a generator, from which the layers draw their weights, and these arguments. Without a
    generator the weights are to be loaded.
    """

    network: Callable[..., nn.Module]
    arguments: dict[str, Any]

    def built(self, generator: torch.Generator | None) -> nn.Module:
        """Return the network in float32, on the CPU."""
        return self.network(generator, **self.arguments)

    def restored(
        self,
        weights: Mapping[str, np.ndarray],
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> nn.Module:
        """Return the network with stored weights, in eval mode."""
        return load_weights(self.built(None), weights, device).to(dtype)


# From stored weights to the model, and to public attributes.
Described = Callable[[dict[str, np.ndarray]], tuple[Any, dict[str, Any]]]


def own_randomness(ws: Workspace) -> Randomness:
    """Return the random numbers of a fit that runs no code of the user but callbacks."""
    return Randomness(ws.generator, ws.device, seeds_global=False)


def fit_design(
    estimator,
    design: Design,
    batches: Batches,
    loss: Callable[[Any, Any], torch.Tensor],
    training: Training,
    *,
    ws: Workspace,
    randomness: Randomness,
    described: Described,
    schedule: Schedule | None = None,
    X: Any,
    y: Any,
) -> Fitted:
    """Train a network for all epochs of `training` and return what the estimator keeps of it.

    A `schedule` gets the number of batches. `described` says what the fitted attributes are besides `loss_curve_` and
    `n_iter_`; callbacks that score on the way ask for them, and score on X and y. An estimator that ignores y passes on
    what it was given: without y, scikit-learn's ScoringMonitor computes no score. The estimator keeps the weights of
    the last epoch.
    """

    def attributes(snapshot):
        model, public = described(as_numpy(snapshot.weights))
        return fitted_attributes(ws, model, **public)

    steps = _steps(design, batches, loss, training, ws.device, randomness, schedule)
    run = drive(estimator, steps, attributes=attributes, X=X, y=y, max_iter=training.max_iter, tol=training.tol)
    model, public = described(as_numpy(run.state.weights))
    return Fitted(model, {**public, "loss_curve_": run.loss_curve, "n_iter_": run.n_iter})


def trained_weights(
    design: Design,
    batches: Batches,
    loss: Callable[[Any, Any], torch.Tensor],
    training: Training,
    *,
    device: torch.device,
    randomness: Randomness,
    schedule: Schedule | None = None,
) -> dict[str, np.ndarray]:
    """Return the weights of the last epoch of a training that no callback of an estimator follows."""
    (last,) = deque(_steps(design, batches, loss, training, device, randomness, schedule), maxlen=1)
    return as_numpy(last.state.weights)


def _steps(design, batches, loss, training, device, randomness, schedule):
    """Return the steps of the training of a new network."""
    training = training if schedule is None else scheduled(training, batches, schedule)
    net = design.built(randomness.layers).to(device)
    return train(net, batches, loss, training, randomness=randomness, device=device, keep_best=False)


def scheduled(training: Training, batches: Batches, schedule: Schedule) -> Training:
    """Return a training with the callbacks of a schedule."""
    callbacks = schedule(training.max_iter * batches.per_epoch(training.batch_size))
    given = training.net_params.get("callbacks") or []
    return training._replace(net_params={**training.net_params, "callbacks": [*given, *callbacks]})
