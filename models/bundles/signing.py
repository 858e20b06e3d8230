"""Ed25519 signatures of bundles and rules. A worker with a public key uses only those promoted with the matching private key."""

from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

from core.errors import BundleError, SettingsError
from core.settings import Settings

SIGNATURE_BYTES = 64


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


def public_key(path: Path) -> Ed25519PublicKey:
    """
    Load the Ed25519 public key, which verifies signatures.

    Raises:
        SettingsError: if the file does not contain an Ed25519 public key.
    """
    try:
        key = load_pem_public_key(path.read_bytes())
    except (OSError, ValueError) as error:
        raise SettingsError(f"WHYFLAG_BUNDLE_PUBLIC_KEY: {path} cannot be read as a PEM public key: {error}") from None
    if not isinstance(key, Ed25519PublicKey):
        raise SettingsError(f"WHYFLAG_BUNDLE_PUBLIC_KEY: {path} is not an Ed25519 key: run `openssl pkey -in KEY -pubout`")
    return key


def verifying_key(settings: Settings) -> Ed25519PublicKey | None:
    """
    Return the configured key that must verify bundles, or None if unsigned bundles are accepted.

    Raises:
        SettingsError: if the file does not contain an Ed25519 public key.
    """
    return public_key(Path(settings.bundle_public_key)) if settings.bundle_public_key else None


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


def verify(key: Ed25519PublicKey, content: bytes, signature: bytes | None, what: str) -> None:
    """
    Verify a signature.

    Raises:
        BundleError: if the signature is missing or invalid; ``what`` names the signed object in the message.
    """
    if signature is None:
        raise BundleError(
            f"{what} is not signed, but WHYFLAG_BUNDLE_PUBLIC_KEY is set: promote it again with WHYFLAG_BUNDLE_SIGNING_KEY"
        )
    try:
        key.verify(signature, content)
    except InvalidSignature:
        raise BundleError(f"the signature of {what} does not match WHYFLAG_BUNDLE_PUBLIC_KEY: promote it again") from None
