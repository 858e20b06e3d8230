"""
How kernels are compiled: once per installation, without Python's lock, and with C's rules for division by zero.

Kernels work on the caller's arrays and never allocate. They are therefore compiled without numba's reference counts, whose atomic
operations would take a quarter of the time of the features. numba refuses to compile an allocation in such a kernel. ADR 35 explains
why an internal option of numba is used.
"""

from functools import partial

from numba import njit

kernel = partial(njit, cache=True, nogil=True, error_model="numpy", _nrt=False)
inlined = partial(kernel, inline="always")
