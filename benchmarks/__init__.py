"""Every claim on speed or quality, measured against its peers in the same run.

Run ``python -m benchmarks`` for all comparisons, ``python -m benchmarks NAME`` for one. Each module beside this file is
one comparison: a docstring, ``TITLE`` and ``CASES``, a list of functions that take a ``Bench``; ``--list`` prints them.
What comparisons share is in ``data`` (loaders and generators), ``peers`` (other estimators, packages, references) and
``harness`` (measuring, claims, tables).
"""
