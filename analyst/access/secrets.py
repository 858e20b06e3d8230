"""Random secrets for links, sessions and tokens, and the hashes under which they are stored."""

import hashlib
import secrets


def new_secret() -> str:
    """Return a random secret of 256 bits as URL-safe text."""
    return secrets.token_urlsafe(32)


def hash_of(secret: str) -> str:
    """Return the hash under which a random secret is stored. A slow hash is needed only for passwords, which can be guessed."""
    return hashlib.sha256(secret.encode()).hexdigest()
