"""Deciders of a scoring worker: a single fixed one, or the champion of a store, which may change while the worker runs."""

import logging
from time import monotonic
from typing import Protocol

from core.errors import BundleError, WhyflagError
from core.metrics import ALERT_BUDGET, BUNDLE_FAILURES, BUNDLE_INFO
from models.bundles.bundle import Bundle, check_key
from models.bundles.store import BundleStore
from models.scorer import Decider

logger = logging.getLogger(__name__)

_LOOK_SECONDS = 1.0
_REFUSED_SECONDS = 60.0  # retry a refused version after this time: the cause may have been a brief outage of the shared folder


class DeciderSource(Protocol):
    """Source of a stage's deciders."""

    def newest(self) -> Decider:
        """Return the decider to use from the next epoch on. Cheap enough to call for every chunk."""

    def find(self, version: str) -> Decider | None:
        """Return the decider of a version, or None if it is not available."""

    def challenger(self) -> Bundle | None:
        """Return the bundle that scores in shadow, or None."""


class SingleDecider:
    """A single decider that never changes."""

    def __init__(self, decider: Decider) -> None:
        self._decider = decider
        _show(decider.bundle)

    def newest(self) -> Decider:
        """Return the single decider."""
        return self._decider

    def find(self, version: str) -> Decider | None:
        """Return the decider if its version matches, else None."""
        return self._decider if version == self._decider.version else None

    def challenger(self) -> Bundle | None:
        """Return None: there is no challenger."""
        return None


class StoreDeciderSource:
    """
    The champion and the challenger of a store, looked up at most once a second.

    A bundle that cannot be loaded, or that needs another feature spec than this worker's, is logged and refused; the previous
    champion stays in use.
    """

    def __init__(self, store: BundleStore, pan_key: str = "") -> None:
        """
        ``pan_key`` is the fingerprint of the key that tokenises card numbers.

        Raises:
            WhyflagError: if there is no champion or it cannot be used.
        """
        self._store, self._pan_key = store, pan_key
        champion = store.champion
        if champion is None:
            raise BundleError(f"the store in {store.root} has no champion yet: run `whyflag bundles promote`")
        self._newest = store.load(champion.decider)
        assert self._newest.bundle is not None
        check_key(self._newest.bundle, pan_key)
        self.spec = self._newest.bundle.spec
        _show(self._newest.bundle)
        self._loaded = {self._newest.version: self._newest}
        self._refused: dict[str, float] = {}  # version -> time of the next attempt
        self._challenger: Bundle | None = None
        self._looked = monotonic()
        self._look_at_challenger(store.current.challenger)

    def newest(self) -> Decider:
        """Return the store's champion, at most one second out of date."""
        if monotonic() - self._looked >= _LOOK_SECONDS:
            self._look()
        return self._newest

    def find(self, version: str) -> Decider | None:
        """Return the decider of a version, or None if the store lacks it or this worker cannot use it."""
        if version not in self._loaded and not self._is_refused(version):
            try:
                self._loaded[version] = self._load(version)
            except WhyflagError as error:
                self._refuse(version, error)
        return self._loaded.get(version)

    def challenger(self) -> Bundle | None:
        """Return the store's challenger as of the last look-up, or None."""
        return self._challenger

    def _look(self) -> None:
        self._looked = monotonic()
        try:
            current = self._store.current
        except WhyflagError as error:
            logger.error("the store cannot be read, so the champion does not change: %s", error)
            return
        if current.champions and current.champions[-1].decider != self._newest.version:
            found = self.find(current.champions[-1].decider)
            if found is not None and found.bundle is not None:
                logger.info("bundle %s replaces %s from the next epoch on", found.version, self._newest.version)
                _show(found.bundle)
                self._newest = found
        self._look_at_challenger(current.challenger)

    def _look_at_challenger(self, version: str) -> None:
        if version == (self._challenger.version if self._challenger else ""):
            return
        self._challenger = None
        if version and not self._is_refused(version):
            try:
                bundle = self._store.open(version)
                self._check(bundle)
                self._challenger = bundle
                logger.info("bundle %s scores in shadow", version)
            except WhyflagError as error:
                self._refuse(version, error)

    def _is_refused(self, version: str) -> bool:
        return monotonic() < self._refused.get(version, 0.0)

    def _refuse(self, version: str, error: WhyflagError) -> None:
        self._refused[version] = monotonic() + _REFUSED_SECONDS
        BUNDLE_FAILURES.inc()
        logger.error("bundle %s cannot be used: %s", version, error)

    def _load(self, version: str) -> Decider:
        decider = self._store.load(version)
        if decider.bundle is not None:
            self._check(decider.bundle)
        return decider

    def _check(self, bundle: Bundle) -> None:
        check_key(bundle, self._pan_key)
        if bundle.spec.version != self.spec.version:
            raise BundleError(
                f"it needs feature spec {bundle.spec.version}, this worker's state has {self.spec.version}: stop the workers, "
                "run `whyflag state rebuild`, and start them again"
            )


def _show(bundle: Bundle | None) -> None:
    """Show a bundle and its alert budget in the metrics."""
    if bundle is not None:
        BUNDLE_INFO.clear()
        BUNDLE_INFO.labels(bundle.version).set(1)
        ALERT_BUDGET.set(bundle.metrics.budget or None)
