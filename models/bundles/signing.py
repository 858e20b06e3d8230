"""Ed25519 signatures of bundles and rules. A worker with public keys uses only what one of the matching private keys has signed."""

import re
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

from core.errors import BundleError, SettingsError
from core.settings import Settings

SIGNATURE_BYTES: Final = 64
_PUBLIC_KEY: Final = re.compile(rb"-----BEGIN PUBLIC KEY-----.*?-----END PUBLIC KEY-----", re.DOTALL)

PublicKeys = tuple[Ed25519PublicKey, ...]  # any of them may have signed; empty: unsigned bundles are accepted


def private_key(path: Path) -> Ed25519PrivateKey:
    """
    Load the Ed25519 private key, which signs bundles.

    Raises:
        SettingsError: if the file does not contain an Ed25519 private key.
    """
    try:
        key = load_pem_private_key(path.read_bytes(), None)
    except (OSError, ValueError, TypeError) as error:
        raise SettingsError(f"WHYFLAG_BUNDLE_SIGNING_KEY: {path} cannot be read as a PEM private key: {error}") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise SettingsError(
            f"WHYFLAG_BUNDLE_SIGNING_KEY: {path} is not an Ed25519 key: create one with `openssl genpkey -algorithm ed25519`"
        )
    return key


def public_keys(path: Path) -> PublicKeys:
    """
    Load the Ed25519 public keys of a PEM file, which verify signatures. While keys are rotated, the file has the old and the new one.

    Raises:
        SettingsError: if the file does not contain public keys, or contains one of another kind.
    """
    try:
        content = path.read_bytes()
        blocks = _PUBLIC_KEY.findall(content)
        if len(blocks) != content.count(b"-----BEGIN "):
            raise ValueError("it holds something else than complete blocks PUBLIC KEY")
        keys = [load_pem_public_key(block) for block in blocks or [content]]
    except (OSError, ValueError) as error:
        raise SettingsError(f"WHYFLAG_BUNDLE_PUBLIC_KEY: {path} cannot be read as PEM public keys: {error}") from None
    usable = tuple(key for key in keys if isinstance(key, Ed25519PublicKey))
    if len(usable) < len(keys):
        raise SettingsError(
            f"WHYFLAG_BUNDLE_PUBLIC_KEY: {path} has a key that is not Ed25519: run `openssl pkey -in KEY -pubout`"
        )
    return usable


def verifying_keys(settings: Settings) -> PublicKeys:
    """
    Return the configured public keys, one of which must verify a bundle; none if unsigned bundles are accepted.

    Raises:
        SettingsError: if the file does not contain Ed25519 public keys.
    """
    return public_keys(Path(settings.bundle_public_key)) if settings.bundle_public_key else ()


def signing_key(settings: Settings) -> Ed25519PrivateKey | None:
    """
    Return the configured signing key, or None if bundles are not signed.

    Raises:
        SettingsError: if the file does not contain an Ed25519 private key.
    """
    return private_key(Path(settings.bundle_signing_key)) if settings.bundle_signing_key else None


def sign(key: Ed25519PrivateKey, content: bytes) -> bytes:
    """Return the 64-byte signature of ``content``."""
    return key.sign(content)


def verify(keys: PublicKeys, content: bytes, signature: bytes | None, what: str) -> None:
    """
    Verify that one of the keys has signed ``content``. Without keys, accept anything.

    Raises:
        BundleError: if the signature is missing or invalid; ``what`` names the signed object in the message.
    """
    if not keys:
        return
    if signature is None:
        raise BundleError(
            f"{what} is not signed, but WHYFLAG_BUNDLE_PUBLIC_KEY is set: sign it with `whyflag bundles sign`, or promote it again"
        )
    if not any(_signed(key, content, signature) for key in keys):
        raise BundleError(
            f"the signature of {what} matches no key of WHYFLAG_BUNDLE_PUBLIC_KEY: sign it with `whyflag bundles sign`, or promote it again"
        )


def _signed(key: Ed25519PublicKey, content: bytes, signature: bytes) -> bool:
    try:
        key.verify(signature, content)
    except InvalidSignature:
        return False
    return True
