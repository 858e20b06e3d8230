"""A model bundle: an immutable folder with all that scoring needs, named by the hash of its content."""

import hashlib
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import xgboost as xgb
from msgspec import Struct

from core.errors import BundleError, InputError
from models.calibration import Calibration
from models.features.spec import FeatureSpec, decode_spec, encode_spec
from models.novelty import Forest
from models.policy import Policy

MANIFEST = "manifest.json"
MODEL, SPEC, CALIBRATION, POLICY = "model.ubj", "spec.json", "calibration.json", "policy.json"
FOREST, REFERENCE, METRICS, CARD, CASES = "novelty.npz", "reference.npz", "metrics.json", "model_card.md", "cases.parquet"


class Reference(Struct, frozen=True):
    """
    What was usual: ``median``, ``mean`` and ``std`` in training, float32 [F] each, NaN values left out; and of the calibration period
    the bins of each feature and, last, of the probability, ``edges`` float32 [F + 1, 9] and ``shares`` float32 [F + 1, 11].
    """

    median: npt.NDArray[np.float32]
    mean: npt.NDArray[np.float32]
    std: npt.NDArray[np.float32]
    edges: npt.NDArray[np.float32]
    shares: npt.NDArray[np.float32]


class Bundle(Struct, frozen=True):
    """A loaded bundle. ``version`` is the first 12 digits of its content's SHA-256."""

    version: str
    folder: Path
    booster: xgb.Booster
    spec: FeatureSpec
    calibration: Calibration
    policy: Policy
    forest: Forest
    reference: Reference
    metrics: dict[str, Any]


def save_bundle(
    folder: Path, *, booster: xgb.Booster, spec: FeatureSpec, calibration: Calibration, policy: Policy, forest: Forest,
    reference: Reference, metrics: dict[str, Any], card: str, cases: bytes,
) -> str:  # fmt: skip
    """
    Write a bundle to a folder that has none yet, and return its version.

    Raises:
        InputError: if the folder already holds a bundle: bundles are never changed.
    """
    if (folder / MANIFEST).exists():
        raise InputError(f"{folder} already holds a bundle and bundles are never overwritten: choose another --out")
    folder.mkdir(parents=True, exist_ok=True)
    files = {
        MODEL: bytes(booster.save_raw("ubj")),
        SPEC: encode_spec(spec),
        CALIBRATION: msgspec.json.encode(calibration),
        POLICY: msgspec.json.encode(policy),
        FOREST: _arrays(forest._asdict()),
        REFERENCE: _arrays(msgspec.structs.asdict(reference)),
        METRICS: json.dumps(metrics, indent=2, sort_keys=True).encode(),
        CARD: card.encode(),
        CASES: cases,
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in sorted(files.items())}
    version = _version(digests)
    manifest = {"format": 1, "version": version, "files": digests}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2, sort_keys=True) + "\n")
    return version


def load_bundle(folder: Path) -> Bundle:
    """
    A bundle from its folder, every file checked against the manifest.

    Raises:
        BundleError: if the bundle is missing, incomplete, altered or unreadable.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        files = {name: (folder / name).read_bytes() for name in manifest["files"]}
    except FileNotFoundError as error:
        raise BundleError(
            f"no model bundle in {folder} ({Path(error.filename).name} is missing): train one with `whyflag train --out {folder}`"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BundleError(f"the bundle in {folder} cannot be read: {error}") from None
    if not isinstance(manifest["files"], dict):
        raise BundleError(f"the bundle in {folder} cannot be read: its manifest has no table of files")
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in sorted(files.items())}
    altered = [name for name, digest in digests.items() if manifest["files"][name] != digest]
    if altered or _version(digests) != manifest.get("version"):
        raise BundleError(
            f"the bundle in {folder} was altered ({', '.join(altered) or 'manifest'} does not match its SHA-256): restore it or train again"
        )
    try:
        booster = xgb.Booster({"nthread": 1})
        booster.load_model(bytearray(files[MODEL]))
        booster.set_param({"nthread": 1})
        bundle = Bundle(
            version=manifest["version"],
            folder=folder,
            booster=booster,
            spec=decode_spec(files[SPEC]),
            calibration=msgspec.json.decode(files[CALIBRATION], type=Calibration),
            policy=msgspec.json.decode(files[POLICY], type=Policy),
            forest=Forest(**_read_arrays(files[FOREST])),
            reference=Reference(**_read_arrays(files[REFERENCE])),
            metrics=json.loads(files[METRICS]),
        )
    except (
        KeyError,
        TypeError,
        ValueError,
        InputError,
        zipfile.BadZipFile,
        xgb.core.XGBoostError,
        msgspec.MsgspecError,
    ) as error:
        raise BundleError(f"the bundle in {folder} cannot be used: {str(error).splitlines()[0]}") from None
    if tuple(booster.feature_names or ()) != bundle.spec.feature_names:
        raise BundleError(f"the bundle in {folder} mixes a model and a feature spec that do not belong together: train again")
    return bundle


def _version(digests: dict[str, str]) -> str:
    return hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()[:12]


def _arrays(arrays: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def _read_arrays(content: bytes) -> dict[str, Any]:
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return dict(arrays)
