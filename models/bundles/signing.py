"""Ed25519 signatures of bundles: a worker that is given a public key uses only what the holder of the private key has promoted."""

from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

from core.errors import BundleError, SettingsError
from core.settings import Settings

SIGNATURE_BYTES = 64


def private_key(path: Path) -> Ed25519PrivateKey:
    """
    Load the key that signs.

    Raises:
        SettingsError: if the file holds none.
    """
    try:
        key = load_pem_private_key(path.read_bytes(), None)
    except (OSError, ValueError, TypeError) as error:
        raise SettingsError(f"WHYFLAG_BUNDLE_SIGNING_KEY: {path} cannot be read as a PEM private key: {error}") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise SettingsError(
            f"WHYFLAG_BUNDLE_SIGNING_KEY: {path} is no Ed25519 key; make one with `openssl genpkey -algorithm ed25519`"
        )
    return key


def public_key(path: Path) -> Ed25519PublicKey:
    """
    Load the key that verifies.

    Raises:
        SettingsError: if the file holds none.
    """
    try:
        key = load_pem_public_key(path.read_bytes())
    except (OSError, ValueError) as error:
        raise SettingsError(f"WHYFLAG_BUNDLE_PUBLIC_KEY: {path} cannot be read as a PEM public key: {error}") from None
    if not isinstance(key, Ed25519PublicKey):
        raise SettingsError(f"WHYFLAG_BUNDLE_PUBLIC_KEY: {path} is no Ed25519 key; `openssl pkey -in KEY -pubout` writes it")
    return key


def verifying_key(settings: Settings) -> Ed25519PublicKey | None:
    """
    The key that bundles must be signed for by the settings; None where any bundle will do.

    Raises:
        SettingsError: if the file holds none.
    """
    return public_key(Path(settings.bundle_public_key)) if settings.bundle_public_key else None


def signing_key(settings: Settings) -> Ed25519PrivateKey | None:
    """
    The key that signs by the settings; None where nothing is signed.

    Raises:
        SettingsError: if the file holds none.
    """
    return private_key(Path(settings.bundle_signing_key)) if settings.bundle_signing_key else None


def sign(key: Ed25519PrivateKey, content: bytes) -> bytes:
    """Return the signature of some content, 64 bytes."""
    return key.sign(content)


def verify(key: Ed25519PublicKey, content: bytes, signature: bytes | None, what: str) -> None:
    """
    Check a signature.

    Raises:
        BundleError: if there is none or it does not fit; ``what`` names what was signed.
    """
    if signature is None:
        raise BundleError(
            f"{what} is not signed, and WHYFLAG_BUNDLE_PUBLIC_KEY is set: promote it with WHYFLAG_BUNDLE_SIGNING_KEY"
        )
    try:
        key.verify(signature, content)
    except InvalidSignature:
        raise BundleError(f"the signature of {what} is not by the key of WHYFLAG_BUNDLE_PUBLIC_KEY: promote it again") from None
