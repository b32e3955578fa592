"""The border between the user's arrays and torch: device, precision and seed are decided here, once per call."""

import re
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from sklearn.utils import check_random_state

from .compat import get_namespace_and_device, move_to


@dataclass(frozen=True)
class Workspace:
    """Where one call computes, and how its arrays come in and go out."""

    device: torch.device
    dtype: torch.dtype
    random_state: Any
    namespace: Any  # the user's array library
    home: Any  # the device on which the user's array lives; None for numpy
    precision: torch.dtype  # of X, in which answers are given

    @cached_property
    def generator(self) -> torch.Generator:
        """The call's own source of randomness: on the CPU, so that a seed draws the same numbers on every device.

        Made when it is first used: with ``random_state=None`` that takes a number from numpy's global generator.
        """
        seed = int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))
        return torch.Generator("cpu").manual_seed(seed)

    def exact(self) -> "Workspace":
        """Return the same workspace in float64, for sums of squares and what is fitted to them."""
        return replace(self, dtype=torch.float64)

    def load(self, array) -> torch.Tensor:
        """Return `array` as a tensor on the device; floating values in the working precision, others as they are.

        The tensor may share the array's memory: it is read, never written.
        """
        if not isinstance(array, torch.Tensor):
            if self.home is not None and not isinstance(array, np.ndarray):
                array = move_to(array, xp=np, device="cpu")
            array = np.require(array, requirements=["C", "W"])
            array = torch.from_numpy(array.copy() if min(array.strides, default=0) < 0 else array)  # of a single row
        return array.detach().to(self.device, self.dtype if array.is_floating_point() else None)

    def store(self, tensor: torch.Tensor) -> Any:
        """Return `tensor` in the user's library, on the user's device, in memory of its own."""
        tensor = tensor.detach()
        if isinstance(self.home, torch.device):
            return tensor.to(self.home, copy=True)
        array = tensor.cpu().numpy().copy()
        return array if self.home is None else move_to(array, xp=self.namespace, device=self.home)

    def answer(self, tensor: torch.Tensor) -> Any:
        """Return `tensor` in the user's library, floating values in the precision of X."""
        return self.store(tensor.to(self.precision) if tensor.is_floating_point() else tensor)

    def randn(self, *shape: int) -> torch.Tensor:
        """Draw standard normal values of the given shape."""
        return torch.randn(*shape, generator=self.generator, dtype=self.dtype, device="cpu").to(self.device)


def open_workspace(X, *, device: str = "auto", random_state=None) -> Workspace:
    """Decide where and in which precision to compute on `X`, an array that has been validated.

    Rows of a cluster are computed on where they lie; what is made of them is small, and stays on the CPU.

    Raises
    ------
    ValueError
        If a CUDA device is asked for and torch does not see it, or `device` is neither the CPU nor a CUDA device.
    """
    known = isinstance(X, np.ndarray | torch.Tensor) or hasattr(X, "__array_namespace__")
    namespace, _, home = get_namespace_and_device(*[X] * known)  # what is no array counts as numpy's
    precision = torch.float32 if str(X.dtype).endswith("float32") else torch.float64
    return Workspace(
        device=torch.device("cpu") if on_cluster(X) else _choose_device(device, home),
        dtype=precision,
        random_state=random_state,
        namespace=namespace,
        home=home,
        precision=precision,
    )


def on_cluster(X) -> bool:
    """Return whether X are rows of a cluster."""
    return getattr(X, "kind", None) == "cluster"


_DEVICE = re.compile(r"cpu(:0)?|cuda(:(0|[1-9][0-9]*))?")  # those of torch on which float64 and seeds mean the same


def check_place(array: Any, name: str = "X") -> None:
    """Refuse a tensor of the user that lies where nothing is computed, or that has no values; other arrays pass."""
    if isinstance(array, torch.Tensor) and array.device.type not in ("cpu", "cuda"):
        why = "which has no values" if array.is_meta else "where nothing is computed"
        raise TypeError(
            f"{name} is a tensor on the device '{array.device}', {why}. Pass a tensor on the CPU, such as "
            f"{name}.cpu(), or one on CUDA with array_api_dispatch enabled."
        )


def _choose_device(device: str, home: Any) -> torch.device:
    if device == "auto":
        if isinstance(home, torch.device):
            return home
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not _DEVICE.fullmatch(device):
        cure = "Use 'auto', 'cpu', 'cuda' or 'cuda:1'."
        raise ValueError(f"device={device!r} is no device that can be computed on. {cure}")
    kind, _, index = device.partition(":")
    if kind == "cuda" and int(index or 0) >= torch.cuda.device_count():
        seen = f"only {torch.cuda.device_count()} CUDA device(s)" if torch.cuda.is_available() else "no CUDA device"
        raise ValueError(f"device={device!r} was asked for, but torch sees {seen}. Use device='auto' or 'cpu'.")
    return torch.device(device)
