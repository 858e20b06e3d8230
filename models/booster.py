"""
Load a booster that may be broken or hostile.

XGBoost trusts its model files: a damaged one can crash the process, or never come to an end. So the bytes are loaded first in a
child process with limits, which also predicts a few rows; only what survives that is loaded here.
"""

import hashlib
import subprocess
import sys
from pathlib import Path

import xgboost as xgb
from xgboost.libpath import find_lib_path

from core.errors import BundleError

_SECONDS = 20  # of the processor; a bundle of ours takes well below one
_MEMORY = 4 << 30  # address space: the library alone maps some hundred megabytes
_TRIAL = Path(__file__).with_name("booster_trial.py")
_tried: set[tuple[bytes, int]] = set()  # digest and number of features of each booster that passed its trial in this process


def load_booster(raw: bytes, features: int) -> xgb.Booster:
    """
    Load a booster of ``features`` columns, to be used by one thread.

    Raises:
        BundleError: if it cannot be loaded, crashes, or takes too long.
    """
    trial = (hashlib.sha256(raw).digest(), features)
    if trial not in _tried:
        _try(raw, features)
        _tried.add(trial)
    booster = xgb.Booster({"nthread": 1})
    try:
        booster.load_model(bytearray(raw))
    except xgb.core.XGBoostError as error:
        raise BundleError(f"its booster cannot be loaded: {str(error).splitlines()[0]}") from None
    booster.set_param({"nthread": 1})
    return booster


def _try(raw: bytes, features: int) -> None:
    command = [sys.executable, "-I", "-S", str(_TRIAL), find_lib_path()[0], str(features), str(_SECONDS), str(_MEMORY)]
    try:
        ended = subprocess.run(command, input=raw, capture_output=True, timeout=3 * _SECONDS, env={}, check=False)
    except subprocess.TimeoutExpired:
        raise BundleError(f"its booster does not come to an end: loading it took more than {3 * _SECONDS} s") from None
    if ended.returncode:
        said = ended.stderr.decode("utf-8", "replace").strip().splitlines()
        how = f"signal {-ended.returncode}" if ended.returncode < 0 else said[-1] if said else f"status {ended.returncode}"
        raise BundleError(f"its booster cannot be loaded safely: a trial in another process ended with {how}")
