"""
How kernels are compiled: once per version of their folder, without Python's lock, and with NumPy's rules for division by zero.

Most kernels work on the caller's arrays and never allocate. They are compiled without numba's reference counts, whose atomic
operations would take two fifths of the time of the card's features. numba refuses to compile an allocation in such a kernel.
ADR 35 explains why two internals of numba are used.
"""

import hashlib
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

from numba import njit


def _compiled(function: Callable[..., Any], **options: Any) -> Any:
    """
    Return the kernel of a function. Its compiled form is cached on disk until any module in the function's folder changes.

    numba itself compares only the file that defines the function, although the compiled form contains the kernels of other
    modules that the function calls.
    """
    compiled = njit(cache=True, nogil=True, error_model="numpy", **options)(function)
    compiled._cache._cache_file._source_stamp = _stamp(Path(function.__code__.co_filename).parent)
    return compiled


@cache
def _stamp(folder: Path) -> str:
    """Return a hash of all modules in a folder."""
    found = hashlib.sha256()
    for module in sorted(folder.glob("*.py")):
        found.update(hashlib.sha256(module.read_bytes()).digest())
    return found.hexdigest()


allocating = _compiled
kernel = partial(_compiled, _nrt=False)
inlined = partial(_compiled, _nrt=False, inline="always")
