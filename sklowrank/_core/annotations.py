"""Types that are named in several places."""

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

RandomState = int | np.random.RandomState | None
Method = TypeVar("Method", bound=Callable[..., Any])  # of decorators, which keep the signature
