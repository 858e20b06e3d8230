"""Bundle loading: the content must match the version, and no other file is read or executed."""

import hashlib
import io
import json
import os
import random
import shutil
import subprocess
import zipfile

import msgspec
import numpy as np
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from core.errors import BundleError, SettingsError
from core.settings import Settings
from models import booster
from models.booster import load_booster
from models.bundles.bundle import FOREST, MANIFEST, METRICS, MODEL, POLICY, SIGNATURE, check_key, load_bundle
from models.bundles.metrics import BundleMetrics
from models.bundles.signing import signing_key, verifying_keys
from models.bundles.store import BundleStore


@pytest.fixture
def copy(bundle_dir, tmp_path):
    return shutil.copytree(bundle_dir, tmp_path / "copy")


def rehashed(folder):
    """Rewrite the manifest to match the current files and return the new version."""
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["files"] = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in sorted(manifest["files"])}
    manifest["version"] = hashlib.sha256(json.dumps(manifest["files"], sort_keys=True).encode()).hexdigest()[:12]
    (folder / MANIFEST).write_text(json.dumps(manifest))
    return manifest["version"]


def lenient_policy(folder):
    policy = json.loads((folder / POLICY).read_text())
    (folder / POLICY).write_text(json.dumps(policy | {"review": 1.0, "decline": 1.0}))


def test_a_tampered_bundle_is_not_loaded_under_the_original_version(bundle_dir, tmp_path):
    store = BundleStore(tmp_path / "store")
    version = store.add(bundle_dir)
    store.promote(version, "", "me", "first")
    lenient_policy(store.folder(version))
    forged = rehashed(store.folder(version))
    assert load_bundle(store.folder(version)).version == forged != version
    with pytest.raises(BundleError, match=f"holds bundle {forged}, not {version}"):
        store.load(version)
    with pytest.raises(BundleError, match="not"):
        store.open(version)


def test_a_manifest_with_extra_or_missing_files_is_refused(copy):
    manifest = json.loads((copy / MANIFEST).read_text())
    for files in (
        manifest["files"] | {"../secret": "0" * 64},
        manifest["files"] | {"extra.txt": "0" * 64},
        {name: digest for name, digest in manifest["files"].items() if name != POLICY},
        {},
    ):
        (copy / MANIFEST).write_text(json.dumps(manifest | {"files": files}))
        with pytest.raises(BundleError, match="does not list the files of a bundle"):
            load_bundle(copy)


def test_a_pipe_a_link_or_a_device_is_refused_before_it_is_read(copy, tmp_path):
    (copy / POLICY).rename(tmp_path / "policy")
    os.mkfifo(copy / POLICY)
    with pytest.raises(BundleError, match="regular file"):
        load_bundle(copy)
    (copy / POLICY).unlink()
    (copy / POLICY).symlink_to(tmp_path / "policy")
    with pytest.raises(BundleError, match="cannot be read"):
        load_bundle(copy)
    (copy / POLICY).unlink()
    (copy / POLICY).symlink_to("/dev/zero")
    with pytest.raises(BundleError, match="cannot be read"):
        load_bundle(copy)
    (copy / POLICY).unlink()
    (copy / POLICY).mkdir()
    with pytest.raises(BundleError):
        load_bundle(copy)


def test_a_file_that_is_too_large_is_refused_before_it_is_read(copy):
    with (copy / POLICY).open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(BundleError, match="has at most"):
        load_bundle(copy)


def _written(path, key, private):
    if private:
        raw = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    else:
        raw = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    path.write_bytes(raw)
    return str(path)


def test_a_store_with_a_public_key_accepts_only_bundles_signed_by_its_owner(bundle_dir, other_bundle_dir, tmp_path):
    key = Ed25519PrivateKey.generate()
    settings = Settings(
        bundle_signing_key=_written(tmp_path / "private.pem", key, True),
        bundle_public_key=_written(tmp_path / "public.pem", key, False),
    )
    store, trusting = BundleStore(tmp_path / "s", verifying_keys(settings)), BundleStore(tmp_path / "s")
    version, other = store.add(bundle_dir), store.add(other_bundle_dir)
    with pytest.raises(BundleError, match="is not signed"):
        store.open(version)
    trusting.promote(version, "", "me", "unsigned")
    with pytest.raises(BundleError, match="is not signed"):
        store.load(version)
    trusting.promote(version, "", "me", "signed", signing_key(settings))
    assert store.load(version).version == version
    shutil.copy(store.folder(version) / SIGNATURE, store.folder(other) / SIGNATURE)
    with pytest.raises(BundleError, match="signature of bundle"):
        store.open(other)
    lenient_policy(store.folder(version))
    with pytest.raises(BundleError, match="signature of bundle"):
        load_bundle(store.folder(version), rehashed(store.folder(version)), verifying_keys(settings))
    stranger = Settings(bundle_public_key=_written(tmp_path / "other.pem", Ed25519PrivateKey.generate(), False))
    trusting.promote(other, "", "me", "signed", signing_key(settings))
    with pytest.raises(BundleError, match="signature of bundle"):
        BundleStore(tmp_path / "s", verifying_keys(stranger)).open(other)


def test_rules_are_signed_with_the_bundle(bundle_dir, bundle, tmp_path):
    key = Ed25519PrivateKey.generate()
    rules = tmp_path / "r.toml"
    rules.write_text('[[rules]]\nid = "R1"\nowner = "o"\nexpires = 2030-01-01\nwhen = "amount > 1"\noutcome = "review"\n')
    trusting, store = BundleStore(tmp_path / "s"), BundleStore(tmp_path / "s", (key.public_key(),))
    version, ruled = trusting.add(bundle_dir), trusting.add_rules(rules, bundle.spec.feature_names)
    trusting.promote(version, "", "me", "signed", key)
    with pytest.raises(BundleError, match=r"rules [0-9a-f]+ in .* is not signed"):
        store.load(f"{version}+{ruled}")
    trusting.promote(version, ruled, "me", "signed", key)
    assert store.load(f"{version}+{ruled}").rules.version == ruled


@pytest.mark.parametrize("content", [b"", b"nonsense", b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"])
def test_a_file_without_a_key_raises_a_settings_error(tmp_path, content):
    (tmp_path / "key.pem").write_bytes(content)
    with pytest.raises(SettingsError, match="WHYFLAG_BUNDLE_PUBLIC_KEY"):
        verifying_keys(Settings(bundle_public_key=str(tmp_path / "key.pem")))
    with pytest.raises(SettingsError, match="WHYFLAG_BUNDLE_SIGNING_KEY"):
        signing_key(Settings(bundle_signing_key=str(tmp_path / "key.pem")))


def test_a_key_of_another_type_raises_a_settings_error(tmp_path):
    subprocess.run(
        ["openssl", "genpkey", "-algorithm", "ed448", "-out", str(tmp_path / "k.pem")], check=True, capture_output=True
    )
    with pytest.raises(SettingsError, match="not an Ed25519 key"):
        signing_key(Settings(bundle_signing_key=str(tmp_path / "k.pem")))


def test_a_damaged_booster_is_refused_without_crashing_the_process(bundle_dir, bundle):
    """XGBoost crashes or hangs on most of these files, so a child process tries them."""
    raw, rng, refused = (bundle_dir / MODEL).read_bytes(), random.Random(5), 0
    for number in range(12):
        damaged = bytearray(raw)
        if number % 3 == 0:
            damaged = damaged[: rng.randrange(len(damaged))]
        else:
            for _ in range(200):
                damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        try:
            load_booster(bytes(damaged), len(bundle.spec.feature_names))
        except BundleError as error:
            refused += 1
            assert "booster" in str(error)
    assert refused >= 10


def test_a_booster_whose_trial_hangs_is_refused(monkeypatch, tmp_path):
    endless = tmp_path / "endless.py"
    endless.write_text("while True: pass\n")
    monkeypatch.setattr(booster, "_TRIAL", endless)
    monkeypatch.setattr(booster, "_SECONDS", 0.2)
    with pytest.raises(BundleError, match="did not finish"):
        load_booster(b"whatever", 3)


def test_a_booster_of_other_features_is_refused(bundle_dir):
    with pytest.raises(BundleError, match="features"):
        load_booster((bundle_dir / MODEL).read_bytes(), 3)


def test_a_bundle_of_another_pan_key_is_refused(copy):
    metrics = json.loads((copy / METRICS).read_text())
    (copy / METRICS).write_text(json.dumps(metrics | {"pan_key": "0123456789abcdef"}))
    rehashed(copy)
    bundle = load_bundle(copy)
    check_key(bundle, "0123456789abcdef")
    for other in ("", "fedcba9876543210"):
        with pytest.raises(BundleError, match="another WHYFLAG_PAN_KEY"):
            check_key(bundle, other)


def _forest(copy, **changes):
    """Replace arrays in a bundle's forest and return the original ones."""
    with np.load(copy / FOREST) as arrays:
        kept = dict(arrays)
    np.savez(copy / FOREST, **(kept | changes))
    rehashed(copy)
    return kept


@pytest.mark.parametrize("name", ["roots", "depths", "feature", "left", "length", "usual_length", "median", "threshold"])
def test_a_damaged_forest_is_refused(copy, name):
    """The compiled tree walk does not check bounds: on a damaged forest it would read out of bounds or loop forever."""
    kept = _forest(copy)
    wrong = {
        "roots": np.full_like(kept["roots"], 2**30), "depths": np.full_like(kept["depths"], 2**31 - 1), "left": np.full_like(kept["left"], 2**30),
        "feature": np.full_like(kept["feature"], 10**6), "length": kept["length"] * np.nan, "usual_length": kept["usual_length"] * 0,
        "median": kept["median"][:3], "threshold": kept["threshold"][:3],
    }  # fmt: skip
    load_bundle(copy)
    _forest(copy, **{name: wrong[name]})
    with pytest.raises(BundleError, match="forest is damaged"):
        load_bundle(copy)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (FOREST, b""), (FOREST, b"PK\x03\x04" + b"\0" * 40), (METRICS, b"[" * 100_000), (METRICS, b"[]"), (METRICS, b"\xff"), (POLICY, b"{}"),
        (MANIFEST, b'{"version":"\xff"}'), (MANIFEST, b'{"files":' + b"[" * 20_000), (MODEL, b""),
    ],
)  # fmt: skip
def test_malformed_file_content_raises_a_bundle_error(copy, name, content):
    (copy / name).write_bytes(content)
    if name != MANIFEST:
        rehashed(copy)
    with pytest.raises(BundleError):
        load_bundle(copy)


def test_arrays_with_a_huge_declared_shape_are_refused_before_allocation(copy):
    raw = io.BytesIO()
    np.lib.format.write_array_header_1_0(raw, {"shape": (10**14,), "fortran_order": False, "descr": "<i4"})
    with zipfile.ZipFile(copy / FOREST, "w") as archive:
        archive.writestr("roots.npy", raw.getvalue())
    rehashed(copy)
    with pytest.raises(BundleError, match="more data than it contains"):
        load_bundle(copy)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("split_indices", 900_000_000),
        ("split_indices", -5),
        ("left_children", 10**6),
        ("left_children", 0),
        ("right_children", 1),
    ],
)
def test_a_booster_with_a_corrupt_tree_node_is_refused(bundle, field, value):
    """XGBoost does not validate these fields, and a trial prediction visits only some of the tree paths."""
    model = json.loads(bundle.booster.save_raw("json"))
    trees = model["learner"]["gradient_booster"]["model"]["trees"]
    tree = max(trees, key=lambda one: len(one["left_children"]))
    deepest = max(node for node, left in enumerate(tree["left_children"]) if left != -1)
    tree[field][deepest] = value
    with pytest.raises(BundleError, match="booster"):
        load_booster(json.dumps(model).encode(), len(bundle.spec.feature_names))


@pytest.mark.parametrize("content", [b'{"challenger":"\xff"}', b'{"champions":' + b"[" * 200_000, b"nonsense"])
def test_a_damaged_pointer_file_raises_a_bundle_error(tmp_path, content):
    (tmp_path / "current.json").write_bytes(content)
    with pytest.raises(BundleError, match="cannot be read"):
        _ = BundleStore(tmp_path).current


def test_metrics_of_an_earlier_version_can_be_read(bundle_dir):
    """Bundles of format 2 were made before some of these figures existed."""
    metrics = json.loads((bundle_dir / METRICS).read_text())
    del metrics["calibration"]["reported_share"], metrics["budget"], metrics["reliability"]
    del metrics["test"]["mean_probability_of_alerts"], metrics["test"]["calibration_error"]
    read = msgspec.json.decode(json.dumps(metrics | {"unknown": 1}).encode(), type=BundleMetrics)
    assert (read.calibration.reported_share, read.budget, read.reliability) == (1.0, 0.0, ())
    assert read.test.auc == metrics["test"]["auc"]
    assert "calibration error" not in read.test.shown()
