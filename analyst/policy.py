"""How urgent an alert is, and how long people may take."""

from enum import IntEnum

from msgspec import Struct

from core.clock import MS_PER_HOUR, MS_PER_MINUTE, MS_PER_SECOND, duration_ms
from core.money import minor_per_major
from core.settings import Settings


class Severity(IntEnum):
    """How urgent an alert is, by its expected loss."""

    CRITICAL = 0
    HIGH = 1
    NORMAL = 2


class QueuePolicy(Struct, frozen=True):
    """
    Severities, deadlines and grace periods.

    ``losses`` are the expected losses, in major units, from which an alert is critical and high. ``deadlines_ms`` are the times
    within which an alert of each severity needs a verdict.
    """

    losses: tuple[int, int] = (500, 50)
    deadlines_ms: tuple[int, int, int] = (MS_PER_HOUR, 4 * MS_PER_HOUR, 24 * MS_PER_HOUR)
    claim_ms: int = 15 * MS_PER_MINUTE
    grace_ms: int = 30 * MS_PER_SECOND
    bulk_grace_ms: int = 10 * MS_PER_MINUTE

    def severity(self, loss: int, currency: str) -> Severity:
        """Return the severity of an alert by its expected loss in minor units."""
        major = loss / minor_per_major(currency)
        if major >= self.losses[0]:
            return Severity.CRITICAL
        return Severity.HIGH if major >= self.losses[1] else Severity.NORMAL

    def deadline(self, raised_at: int, severity: Severity) -> int:
        """Return the time (epoch ms) by which an alert needs a verdict."""
        return raised_at + self.deadlines_ms[severity]


def policy_of(settings: Settings) -> QueuePolicy:
    """Return the policy that the settings describe."""
    critical, high = (int(loss) for loss in settings.severity_losses.split(","))
    first, second, third = (duration_ms(text) for text in settings.severity_deadlines.split(","))
    return QueuePolicy(
        losses=(critical, high),
        deadlines_ms=(first, second, third),
        claim_ms=round(settings.claim_minutes * MS_PER_MINUTE),
        grace_ms=round(settings.verdict_grace_seconds * MS_PER_SECOND),
        bulk_grace_ms=round(settings.bulk_grace_seconds * MS_PER_SECOND),
    )
