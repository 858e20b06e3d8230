"""Model bundles: immutable folders with everything that scoring needs, versioned by the hash of their content."""

import hashlib
import io
import json
import math
import os
import stat
import zipfile
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import xgboost as xgb
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from msgspec import Struct

from core.errors import BundleError, InputError
from models.booster import load_booster
from models.bundles.metrics import BundleMetrics
from models.bundles.signing import SIGNATURE_BYTES, PublicKeys, sign, verify
from models.calibration import Calibration
from models.features.spec import FeatureSpec, decode_spec, encode_spec
from models.novelty import Forest, check_forest
from models.policy import Policy
from models.trees import Trees, margins_by_xgboost, trees_of

FORMAT = 2
MANIFEST, SIGNATURE = "manifest.json", "signature"
MODEL, SPEC, CALIBRATION, POLICY = "model.ubj", "spec.json", "calibration.json", "policy.json"
FOREST, REFERENCE, METRICS, CARD, CASES = "novelty.npz", "reference.npz", "metrics.json", "model_card.md", "cases.parquet"

# Files of a bundle, with their maximum sizes in bytes. No other file is read.
_LARGEST = {
    MANIFEST: 64 << 10, SIGNATURE: SIGNATURE_BYTES, MODEL: 512 << 20, SPEC: 1 << 20, CALIBRATION: 16 << 20, POLICY: 64 << 10,
    FOREST: 256 << 20, REFERENCE: 64 << 20, METRICS: 16 << 20, CARD: 1 << 20, CASES: 512 << 20,
}  # fmt: skip


class Reference(Struct, frozen=True):
    """
    Reference statistics of a bundle.

    ``median``, ``mean`` and ``std`` describe the training data, float32 [F] each, ignoring NaN. ``edges`` float32 [F + 1, 9]
    and ``shares`` float32 [F + 1, 11] are the bin edges and the bins' shares in the calibration period. They have one row for
    each feature and a last row for the probability.
    ``honest`` and ``fraud`` are samples of the training transactions, float32 [n, F], with each column sorted separately and
    NaN last.
    """

    median: npt.NDArray[np.float32]
    mean: npt.NDArray[np.float32]
    std: npt.NDArray[np.float32]
    edges: npt.NDArray[np.float32]
    shares: npt.NDArray[np.float32]
    honest: npt.NDArray[np.float32]
    fraud: npt.NDArray[np.float32]


class Bundle(Struct, frozen=True):
    """A loaded bundle. ``version`` is the first 12 hexadecimal digits of the SHA-256 of its content."""

    version: str
    folder: Path
    booster: xgb.Booster
    spec: FeatureSpec
    calibration: Calibration
    policy: Policy
    forest: Forest
    reference: Reference
    metrics: BundleMetrics
    trees: Trees | None = None  # the booster's trees for the kernel; None: only XGBoost can score it

    def margins(self, X: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return the booster's margins of X, float32 [n, F]; float32 [n]. Kernel and XGBoost give the same bits."""
        if self.trees is not None:
            return self.trees.margins(X)
        return margins_by_xgboost(self.booster, X)


def check_empty(folder: Path) -> None:
    """
    Check that a folder may receive a bundle.

    Raises:
        InputError: if it already holds one, because bundles are never changed.
    """
    if (folder / MANIFEST).exists():
        raise InputError(f"{folder} already holds a bundle, and bundles are never overwritten: choose another --out")


def save_bundle(
    folder: Path, *, booster: xgb.Booster, spec: FeatureSpec, calibration: Calibration, policy: Policy, forest: Forest,
    reference: Reference, metrics: BundleMetrics, card: str, cases: bytes,
) -> str:  # fmt: skip
    """
    Write a bundle to a folder and return its version.

    Raises:
        InputError: if the folder already holds a bundle, because bundles are never changed.
    """
    check_empty(folder)
    folder.mkdir(parents=True, exist_ok=True)
    files = {
        MODEL: bytes(booster.save_raw("ubj")),
        SPEC: encode_spec(spec),
        CALIBRATION: msgspec.json.encode(calibration),
        POLICY: msgspec.json.encode(policy),
        FOREST: _arrays(forest._asdict()),
        REFERENCE: _arrays(msgspec.structs.asdict(reference)),
        METRICS: msgspec.json.format(msgspec.json.encode(metrics, order="sorted")),
        CARD: card.encode(),
        CASES: cases,
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in sorted(files.items())}
    version = _version(digests)
    manifest = {"format": FORMAT, "version": version, "files": digests}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2, sort_keys=True) + "\n")
    return version


def load_bundle(folder: Path, version: str = "", keys: PublicKeys = ()) -> Bundle:
    """
    Load a bundle from its folder and check every file against the manifest.

    With ``version``, the bundle must have that version, whatever the folder's name. With ``keys``, one of them must have signed it.

    Raises:
        BundleError: if the bundle is missing, incomplete, altered, unreadable, of another version, or without a valid signature.
    """
    manifest, files, signature = _read(folder)
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in sorted(files.items())}
    altered = [name for name, digest in digests.items() if manifest.files[name] != digest]
    if altered or _version(digests) != manifest.version:
        raise BundleError(
            f"the bundle in {folder} was altered ({', '.join(altered) or 'manifest'} does not match its SHA-256): restore it or train again"
        )
    if version and manifest.version != version:
        raise BundleError(
            f"{folder} holds bundle {manifest.version}, not {version}: restore the expected bundle, or add and promote this one"
        )
    verify(keys, _signed(digests), signature, f"bundle {manifest.version} in {folder}")
    try:
        spec = decode_spec(files[SPEC])
        booster = load_booster(files[MODEL], len(spec.feature_names))
        bundle = Bundle(
            version=manifest.version,
            folder=folder,
            booster=booster,
            spec=spec,
            calibration=msgspec.json.decode(files[CALIBRATION], type=Calibration),
            policy=msgspec.json.decode(files[POLICY], type=Policy),
            forest=Forest(**_read_arrays(files[FOREST])),
            reference=Reference(**_read_arrays(files[REFERENCE])),
            metrics=msgspec.json.decode(files[METRICS], type=BundleMetrics),
            trees=trees_of(booster),
        )
        check_forest(bundle.forest, len(spec.feature_names))
    except (
        Exception
    ) as error:  # a damaged file may raise any exception in a library, and a worker must be able to go on without this bundle
        said = str(error).splitlines() or [""]
        raise BundleError(f"the bundle in {folder} cannot be used: {type(error).__name__}: {said[0]}") from None
    wide = (bundle.reference.honest, bundle.reference.fraud)
    if any(sample.ndim != 2 or sample.shape[1] != len(spec.feature_names) or not len(sample) for sample in wide):
        raise BundleError(f"the bundle in {folder} has a reference that does not match the features of its spec: train again")
    if tuple(booster.feature_names or ()) != bundle.spec.feature_names:
        raise BundleError(f"the bundle in {folder} mixes a model and a feature spec that do not belong together: train again")
    return bundle


def sign_bundle(folder: Path, key: Ed25519PrivateKey, version: str) -> None:
    """
    Sign a bundle and write the signature next to its manifest.

    Raises:
        BundleError: if the bundle cannot be read, or is not the one of this version, which is the hash of its content.
    """
    manifest, files, _ = _read(folder)
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in sorted(files.items())}
    if digests != manifest.files or not manifest.version == version == _version(digests):
        raise BundleError(f"the bundle in {folder} was altered: restore it or train again")
    write_signature(folder, sign(key, _signed(digests)))


def write_signature(folder: Path, signature: bytes) -> None:
    """Write the signature of a bundle or of rules; a worker that reads it meanwhile sees the old or the new one."""
    partial = folder / f".{SIGNATURE}.{os.getpid()}"
    partial.write_bytes(signature)
    partial.replace(folder / SIGNATURE)


def check_key(bundle: Bundle, fingerprint: str) -> None:
    """
    Check that a bundle was trained with card numbers tokenised under the configured key.

    Raises:
        BundleError: if it was trained under another key.
    """
    own = bundle.metrics.pan_key
    if own and own != fingerprint:
        raise BundleError(
            f"bundle {bundle.version} was trained under another WHYFLAG_PAN_KEY (fingerprint {own}; the current fingerprint is "
            f"{fingerprint or 'none'}): set that key, or see 'Another key' in docs/concepts/privacy.md"
        )


class _Manifest(Struct, frozen=True):
    version: str
    files: dict[str, str]
    format: int


def _read(folder: Path) -> tuple[_Manifest, dict[str, bytes], bytes | None]:
    """Return the manifest, the files of a bundle, and the signature if there is one. No other file is opened."""
    try:
        manifest = msgspec.json.decode(_content(folder / MANIFEST), type=_Manifest)
        if manifest.format != FORMAT:
            raise BundleError(
                f"the bundle in {folder} has format {manifest.format}, this version of whyflag reads {FORMAT}: train again"
            )
        if manifest.files.keys() != _LARGEST.keys() - {MANIFEST, SIGNATURE}:
            raise BundleError(f"the bundle in {folder} cannot be read: its manifest does not list the files of a bundle")
        files = {name: _content(folder / name) for name in manifest.files}
        signature = _content(folder / SIGNATURE) if (folder / SIGNATURE).exists() else None
    except FileNotFoundError as error:
        raise BundleError(
            f"no model bundle in {folder} ({Path(error.filename).name} is missing): train one with `whyflag train --out {folder}`"
        ) from None
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BundleError(f"the bundle in {folder} cannot be read: {error}") from None
    return manifest, files, signature


def _content(path: Path) -> bytes:
    return read_regular(path, _LARGEST[path.name])


def read_regular(path: Path, largest: int) -> bytes:
    """
    Read a regular file of at most ``largest`` bytes. Symbolic links, pipes and devices are rejected without reading them.

    Raises:
        OSError: if it cannot be opened, as with a symbolic link.
        BundleError: if it is not a regular file, or larger than ``largest``.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise BundleError(f"{path} is not a regular file: restore it")
        if status.st_size > largest:
            raise BundleError(f"{path} has {status.st_size:,} bytes, but a valid file has at most {largest:,}: restore it")
        return file.read(largest)


def _signed(digests: dict[str, str]) -> bytes:
    """Return the bytes to sign: the names of all files and their SHA-256."""
    return b"whyflag bundle " + json.dumps(digests, sort_keys=True).encode()


def _version(digests: dict[str, str]) -> str:
    return hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()[:12]


def _arrays(arrays: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def _read_arrays(content: bytes) -> dict[str, Any]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:  # a small file may expand to very large arrays
        if sum(member.file_size for member in archive.infolist()) > _LARGEST[FOREST]:
            raise BundleError("the arrays are larger than a bundle allows")
        for member in archive.infolist():
            with archive.open(member) as file:
                version = np.lib.format.read_magic(file)
                read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                shape, _, dtype = read(file)
                if math.prod(shape) * dtype.itemsize > member.file_size:
                    raise BundleError(f"array {member.filename} declares more data than it contains")
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return dict(arrays)
