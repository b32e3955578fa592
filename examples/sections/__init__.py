"""The sections of the demo, in the order of the page; a method adds its file and one name here."""

from .frechet_sdr import frechet_sdr
from .manifold_linearizing_clustering import manifold_linearizing_clustering
from .matrix_completion import real_tables
from .mixed_table import mixed_table
from .private_kernel_density import private_kernel_density
from .subspace_clustering import subspace_clustering
from .supervised_dictionary_learning import supervised_dictionary_learning

SECTIONS = [
    real_tables,
    mixed_table,
    subspace_clustering,
    manifold_linearizing_clustering,
    supervised_dictionary_learning,
    frechet_sdr,
    private_kernel_density,
]
