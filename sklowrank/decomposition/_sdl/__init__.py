"""What both supervised dictionaries share. Each file calls those below it.

- ``shared_methods``: parameters, methods and covariates of both estimators
- ``problem``: options and data to a problem, the choice of its solver, its solution to the fitted model
- ``unconstrained_solvers`` and ``block_descent``: the three solvers
- ``objective``: losses, the objective of the filter model and its derivatives
- ``table``: scaled features, in blocks to multiply with
"""
