"""The random numbers of a network: generators of the fit for our layers, torch's global ones for the user's code."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch

# Torch's global generators belong to the process: one fit at a time may seed them.
_GLOBAL_GENERATORS = threading.RLock()


class Randomness:
    """The random numbers of one fit.

    Batches draw from `generator`; initial weights and dropout of our own layers from `layers`: both belong to the fit
    alone. Code of the user (a module, callbacks or an optimizer of their own) draws from torch's global generators.
    With `seeds_global` these are seeded under :meth:`scope` and continue from the state of the last use, the default
    device is the CPU, and afterwards they are restored. A lock admits one thread at a time.
    """

    def __init__(
        self, generator: torch.Generator, device: torch.device, *, seeds_global: bool, layers_seed: int | None = None
    ):
        self.generator = generator
        drawn = int(torch.randint(1 << 31, (), generator=generator, device="cpu", dtype=torch.int64))
        self.layers_seed = drawn if layers_seed is None else layers_seed
        self.layers = torch.Generator("cpu").manual_seed(self.layers_seed)
        self._seeds_global = seeds_global
        self._gpus = [device] if device.type == "cuda" else []
        self._states: list[torch.Tensor] = []

    @contextmanager
    def scope(self) -> Iterator[None]:
        """Let the user's code in the block draw from the global generators, seeded for this fit."""
        if not self._seeds_global:
            yield
            return
        with _GLOBAL_GENERATORS, torch.random.fork_rng(devices=self._gpus), _cpu_by_default():
            if self._states:
                torch.set_rng_state(self._states[0])
                for gpu, state in zip(self._gpus, self._states[1:]):
                    torch.cuda.set_rng_state(state, gpu)
            else:
                torch.default_generator.manual_seed(self.layers_seed)
                for gpu in self._gpus:
                    with torch.cuda.device(gpu):
                        torch.cuda.manual_seed(self.layers_seed)
            try:
                yield
            finally:
                self._states = [torch.get_rng_state(), *(torch.cuda.get_rng_state(gpu) for gpu in self._gpus)]


def fit_randomness(estimator, ws) -> Randomness:
    """Return the random numbers of a fit; global ones are seeded where `module` or `net_params` are the user's."""
    return Randomness(ws.generator, ws.device, seeds_global=estimator.module is not None or bool(estimator.net_params))


def fixed_randomness(layers_seed: int | None = None) -> Randomness:
    """Return random numbers for a network whose weights are loaded afterwards: they leave the user's as they are.

    With the `layers_seed` of a fit its initial weights are drawn again.
    """
    return Randomness(
        torch.Generator("cpu").manual_seed(0), torch.device("cpu"), seeds_global=True, layers_seed=layers_seed
    )


def _cpu_by_default():
    """Make the CPU the default device; where it is, do nothing, because the context would slow down each call."""
    return nullcontext() if torch.get_default_device().type == "cpu" else torch.device("cpu")
