"""
Load a booster that may be damaged or malicious.

XGBoost trusts its model files: a damaged file can crash the process or make it loop forever. The bytes are therefore loaded
first in a child process with resource limits, which also predicts a few rows. Only a booster that passes this trial is loaded
in this process.
"""

import hashlib
import subprocess
import sys
from pathlib import Path

import xgboost as xgb
from xgboost.libpath import find_lib_path

from core.errors import BundleError

_SECONDS = 20  # CPU time; a valid booster takes well under one second
_MEMORY = 4 << 30  # address space; the XGBoost library alone maps several hundred megabytes
_TRIAL = Path(__file__).with_name("booster_trial.py")
_tried: set[tuple[bytes, int]] = set()  # digest and number of features of each booster that passed its trial in this process


def load_booster(raw: bytes, features: int) -> xgb.Booster:
    """
    Load a booster with ``features`` input columns, for use by a single thread.

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
        raise BundleError(f"the booster cannot be loaded: {str(error).splitlines()[0]}") from None
    booster.set_param({"nthread": 1})
    return booster


def _try(raw: bytes, features: int) -> None:
    command = [sys.executable, "-I", "-S", str(_TRIAL), find_lib_path()[0], str(features), str(_SECONDS), str(_MEMORY)]
    try:
        ended = subprocess.run(command, input=raw, capture_output=True, timeout=3 * _SECONDS, env={}, check=False)
    except subprocess.TimeoutExpired:
        raise BundleError(f"the trial of the booster did not finish within {3 * _SECONDS} s: train again") from None
    if ended.returncode:
        said = ended.stderr.decode("utf-8", "replace").strip().splitlines()
        how = f"signal {-ended.returncode}" if ended.returncode < 0 else said[-1] if said else f"status {ended.returncode}"
        raise BundleError(f"the booster cannot be loaded safely: its trial in a child process failed ({how})")
