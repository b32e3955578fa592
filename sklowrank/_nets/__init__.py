"""Networks: what estimators with networks share. Private; imports `_core`, torch and skorch, and no method."""
