"""What both supervised dictionaries share. Each file calls those below it.

- ``shared_methods``: parameters, methods and covariates of both estimators
- ``problem``: options and data to a problem, the choice of its solver, its solution to the fitted model
- ``solver_lbfgs``, ``solver_lpgd``, ``solver_bcd``: the solvers, by their name in `solver`
- ``objective``: losses, blocks of features, the objective of the filter model and its gradient
"""
