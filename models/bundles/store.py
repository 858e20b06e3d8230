"""
Store of bundles and rules, with a pointer to the bundle and rules in use. A running worker watches the pointer.

The store is a folder with ``bundles/<version>``, ``rules/<version>`` and ``current.json``, which names the champion, the
challenger and all earlier champions. ``current.json`` is replaced atomically, so that a reader sees either the old or the new
content.
"""

import fcntl
import os
import shutil
import tempfile
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from msgspec import Struct, structs

from core.errors import BundleError, InputError, WhyflagError
from models.bundles.bundle import MANIFEST, METRICS, SIGNATURE, Bundle, load_bundle, read_regular, sign_bundle, write_signature
from models.bundles.metrics import BundleMetrics
from models.bundles.signing import SIGNATURE_BYTES, PublicKeys, sign, verify
from models.scorer import Decider

CURRENT = "current.json"
RULES_FILE = "rules.toml"
_LARGEST_POINTER = 16 << 20


class Champion(Struct, frozen=True):
    """
    A promoted bundle with its rules, if any.

    ``since`` is the time of the promotion (UTC, ISO 8601), ``by`` the person who promoted the bundle, and ``why`` the reason.
    """

    bundle: str
    rules: str = ""
    since: str = ""
    by: str = ""
    why: str = ""
    back: bool = False  # set by a rollback
    lists: bool = False  # only the contents of lists changed: a rollback treats it and the champion before it as one

    @property
    def decider(self) -> str:
        """Version of the decider: the bundle's version and, with rules, a plus sign and the rules' version."""
        return f"{self.bundle}+{self.rules}" if self.rules else self.bundle


class Current(Struct, frozen=True):
    """All champions, the current one last, and the challenger's version."""

    champions: tuple[Champion, ...] = ()
    challenger: str = ""


class BundleStore:
    """A folder of bundles and rules."""

    def __init__(self, root: Path, keys: PublicKeys = ()) -> None:
        """With ``keys``, only bundles and rules that one of the matching private keys has signed are loaded."""
        self.root, self._keys = root, keys

    @staticmethod
    def at(root: Path) -> bool:
        """Return whether a folder is a bundle store."""
        return (root / CURRENT).is_file()

    @property
    def current(self) -> Current:
        """
        Current content of ``current.json``.

        Raises:
            BundleError: if it cannot be read.
        """
        try:
            return msgspec.json.decode(read_regular(self.root / CURRENT, _LARGEST_POINTER), type=Current)
        except FileNotFoundError:
            return Current()
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise BundleError(f"{self.root / CURRENT} cannot be read: {error}") from None

    @property
    def champion(self) -> Champion | None:
        """Current champion, or None."""
        champions = self.current.champions
        return champions[-1] if champions else None

    def versions(self) -> list[str]:
        """Return the versions of all bundles in the store."""
        return sorted(folder.name for folder in (self.root / "bundles").glob("*") if (folder / MANIFEST).exists())

    def folder(self, version: str) -> Path:
        """
        Return the folder of a bundle.

        Raises:
            InputError: if the store has no bundle of that version.
        """
        if version not in self.versions():
            raise InputError(f"{self.root} holds no bundle {version!r}: it holds {', '.join(self.versions()) or 'none'}")
        return self.root / "bundles" / version

    def add(self, folder: Path) -> str:
        """
        Copy a bundle into the store and return its version. A bundle that is already in the store stays unchanged.

        Raises:
            BundleError: if it is missing, altered or unreadable.
        """
        version = load_bundle(folder).version
        self._place(folder, self._made("bundles") / version)
        return version

    def open(self, version: str) -> Bundle:
        """
        Load a bundle from the store.

        Raises:
            WhyflagError: if the store does not have it, or its folder contains another version.
        """
        return load_bundle(self.folder(version), version, self._keys)

    def add_rules(self, path: Path, features: tuple[str, ...]) -> str:
        """
        Copy rules and the files of their lists into the store, and return the version of the rules.

        Raises:
            InputError: if the rules cannot be used with these features.
        """
        from models.rules import load_rules  # Polars is imported only if there are rules

        version = load_rules(path, features).version
        with tempfile.TemporaryDirectory() as made:
            folder = Path(made).resolve()
            shutil.copy(path, folder / RULES_FILE)
            for listed in tomllib.loads(path.read_text()).get("lists", {}).values():
                if name := listed.get("file"):
                    target = (folder / name).resolve()
                    if target.name == RULES_FILE:
                        raise InputError(f"{path}: a list file cannot be named {name}: rename it")
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy(path.parent / name, target)
            self._place(folder, self._made("rules") / version)
        return version

    def replace_lists(self, files: dict[str, str], by: str, why: str, key: Ed25519PrivateKey | None = None) -> Champion | None:
        """
        Replace list files of the champion's rules and promote the champion with them. Return None if nothing changes.

        ``files`` holds the contents by name. Files that the rules do not refer to are ignored.

        Raises:
            WhyflagError: if there is no champion with rules, or the rules cannot be used with these lists.
        """
        champion = self.champion
        if champion is None or not champion.rules:
            raise InputError(f"the champion of {self.root} has no rules: promote rules that refer to the lists first")
        self.load(champion.decider)  # refuses rules that were altered: they must not be signed again
        old = self.root / "rules" / champion.rules
        with tempfile.TemporaryDirectory() as made:
            folder = Path(made) / "rules"
            shutil.copytree(old, folder, ignore=shutil.ignore_patterns(SIGNATURE))
            for name, content in files.items():
                if (folder / name).is_file():
                    (folder / name).write_text(content, encoding="utf-8")
            version = self.add_rules(folder / RULES_FILE, self.open(champion.bundle).spec.feature_names)
        if version == champion.rules:
            return None
        return self._promote(Champion(champion.bundle, version, _now(), by, why, lists=True), key, champion)

    def load(self, version: str) -> Decider:
        """
        Load a decider by its version: a bundle's version, optionally followed by a plus sign and the version of rules.

        Raises:
            WhyflagError: if the store does not have it, or it cannot be used.
        """
        name, _, rules = version.partition("+")
        bundle = self.open(name)
        if not rules:
            return Decider(bundle)
        from models.rules import load_rules  # Polars is imported only if there are rules

        folder = self.root / "rules" / rules
        loaded = load_rules(folder / RULES_FILE, bundle.spec.feature_names)
        if loaded.version != rules:
            raise BundleError(f"the rules {rules} in {self.root} were altered: promote them again")
        if self._keys:
            signature = read_regular(folder / SIGNATURE, SIGNATURE_BYTES) if (folder / SIGNATURE).is_file() else None
            verify(self._keys, _signed_rules(loaded.digest), signature, f"rules {rules} in {self.root}")
        return Decider(bundle, loaded)

    def challenge(self, version: str, key: Ed25519PrivateKey | None = None) -> None:
        """
        Make a bundle the challenger, which scores in shadow. An empty version removes the challenger. With ``key``, it is signed.

        Raises:
            InputError: if the store has no bundle of that version.
            BundleError: if the bundle is to be signed, but is not the one of that version.
        """
        if version:
            folder = self.folder(version)
            if key is not None:
                sign_bundle(folder, key, version)
        with self._changing() as current:
            self._write(structs.replace(current, challenger=version))

    def promote(
        self, bundle: str, rules: str, by: str, why: str, key: Ed25519PrivateKey | None = None, expected: Champion | None = None
    ) -> Champion:
        """
        Make a bundle the champion, with the rules of version ``rules``; an empty version means no rules.

        If the bundle is the challenger, it stops being the challenger. With ``key``, bundle and rules are signed. With ``expected``,
        refuse if another champion was promoted in the meantime.

        Raises:
            WhyflagError: if the store does not have it, or it cannot be loaded with these rules.
        """
        return self._promote(Champion(bundle, rules, _now(), by, why), key, expected)

    def _promote(self, champion: Champion, key: Ed25519PrivateKey | None, expected: Champion | None) -> Champion:
        """Promote a champion. With ``expected``, refuse if another champion was promoted in the meantime."""
        decider = self.load(champion.decider)
        if key is not None:
            self._sign(decider, key)
        with self._changing() as current:
            if expected is not None and current.champions[-1:] != (expected,):
                raise InputError(f"another champion of {self.root} was promoted in the meantime: try again")
            challenger = "" if current.challenger == champion.bundle else current.challenger
            self._write(Current((*current.champions, champion), challenger))
        return champion

    def sign(self, key: Ed25519PrivateKey) -> tuple[list[str], dict[str, str]]:
        """
        Sign every champion so far, with its rules, and the challenger anew, for example with another key.

        Return the versions that were signed, and those that cannot be loaded, for example because nobody has signed them, with the
        reason.

        Raises:
            WhyflagError: if the champion cannot be loaded; nothing is signed then.
        """
        current = self.current
        names = [*([current.challenger] if current.challenger else []), *(champion.decider for champion in current.champions)]
        signed, refused = list[str](), dict[str, str]()
        for name in dict.fromkeys(reversed(names)):  # the champion first
            try:
                self._sign(self.load(name), key)
            except WhyflagError as error:
                if current.champions and name == current.champions[-1].decider:
                    raise
                refused[name] = str(error)
            else:
                signed.append(name)
        return signed, refused

    def _sign(self, decider: Decider, key: Ed25519PrivateKey) -> None:
        assert decider.bundle is not None
        version = decider.bundle.version
        sign_bundle(self.folder(version), key, version)
        if decider.rules is not None:
            write_signature(self.root / "rules" / decider.rules.version, sign(key, _signed_rules(decider.rules.digest)))

    def rollback(self, by: str, why: str) -> Champion:
        """
        Make the previous champion the champion again. A second rollback goes back one champion further.

        Raises:
            WhyflagError: if there is no previous champion, or it can no longer be loaded.
        """
        with self._changing() as current:
            line: list[Champion] = []
            for champion in current.champions:
                if champion.back:
                    while line and line[-1].decider != champion.decider:
                        line.pop()
                elif champion.lists and line and line[-1].bundle == champion.bundle:
                    line[-1] = champion
                elif not line or line[-1].decider != champion.decider:
                    line.append(champion)
            if len(line) < 2:
                raise InputError(f"{self.root} has no other champion to roll back to")
            self.load(line[-2].decider)
            champion = structs.replace(line[-2], since=_now(), by=by, why=why, back=True)
            self._write(Current((*current.champions, champion), current.challenger))
        return champion

    def _made(self, name: str) -> Path:
        folder = self.root / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    @staticmethod
    def _place(source: Path, place: Path) -> None:
        """Copy a folder atomically: it becomes visible only when it is complete."""
        if place.exists():
            return
        partial = place.with_name(f".{place.name}.{os.getpid()}")
        shutil.copytree(source, partial, ignore=shutil.ignore_patterns("rejects.jsonl"))
        partial.rename(place)

    @contextmanager
    def _changing(self) -> Iterator[Current]:
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield self.current

    def _write(self, current: Current) -> None:
        partial = self.root / f".{CURRENT}.{os.getpid()}"
        with partial.open("wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(current)) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self.root / CURRENT)


def _signed_rules(digest: str) -> bytes:
    return f"whyflag rules {digest}".encode()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def open_decider(path: Path, keys: PublicKeys = ()) -> Decider:
    """
    Return a decider for the bundle in a folder, or for a store's champion with its rules.

    Raises:
        WhyflagError: if there is no bundle or champion, or it cannot be used.
    """
    if not BundleStore.at(path):
        return Decider(load_bundle(path, keys=keys))
    store = BundleStore(path, keys)
    if store.champion is None:
        raise BundleError(f"the store in {path} has no champion yet: run `whyflag bundles promote`")
    return store.load(store.champion.decider)


def open_bundle(path: Path, keys: PublicKeys = ()) -> Bundle:
    """
    Return the bundle in a folder, or the bundle of a store's champion.

    Raises:
        WhyflagError: if there is no bundle or champion, or it cannot be used.
    """
    bundle = open_decider(path, keys).bundle
    assert bundle is not None
    return bundle


def open_metrics(path: Path) -> BundleMetrics | None:
    """Return the metrics of the bundle in a folder, or of a store's champion; None if there is none that can be read."""
    try:
        store = BundleStore(path) if BundleStore.at(path) else None
        folder = path if store is None else store.folder(store.champion.bundle) if store.champion else None
        return None if folder is None else msgspec.json.decode((folder / METRICS).read_bytes(), type=BundleMetrics)
    except (OSError, WhyflagError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def rule_words(path: Path) -> Callable[[str], str | None]:
    """Return a function that describes a rule of the champion by its id, or returns None if the rule cannot be found."""

    def of(rule_id: str) -> str | None:
        try:
            rules = open_decider(path).rules
        except WhyflagError:
            return None
        rule = next((one for one in rules.rules if one.id == rule_id), None) if rules else None
        if rule is None:
            return None
        return f"Rule {rule.id} of {rule.owner}: outcome {rule.outcome}, expires {rule.expires}, condition: {rule.when}"

    return of
