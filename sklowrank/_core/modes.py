"""Modes of torch that surround a call of the user, and do not reach our computations."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps

import torch

from .annotations import Method


@contextmanager
def plain_modes() -> Iterator[None]:
    """Compute with gradients enabled, outside inference mode and without autocast, whatever surrounds the call."""
    with ExitStack() as modes:
        modes.enter_context(torch.inference_mode(False))
        modes.enter_context(torch.enable_grad())
        for device in ("cpu", "cuda"):
            if torch.is_autocast_enabled(device):
                modes.enter_context(torch.autocast(device, enabled=False))
        yield


def in_plain_modes(method: Method) -> Method:
    """Decorate a method so that it runs under :func:`plain_modes`."""

    @wraps(method)
    def inner(*args, **kwargs):
        with plain_modes():
            return method(*args, **kwargs)

    return inner  # type: ignore[return-value]
