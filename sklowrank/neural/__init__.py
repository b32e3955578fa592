"""Networks as estimators, and rules that train them with few parameters or in flat minima."""

__all__: list[str] = []
