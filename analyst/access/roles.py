"""Roles, and what each of them may do."""

from enum import StrEnum
from typing import Final

from msgspec import Struct

from core.errors import AccessError


class Role(StrEnum):
    """Role of a user."""

    ANALYST = "analyst"
    LEAD = "lead"
    ADMIN = "admin"
    AUDITOR = "auditor"


class Permission(StrEnum):
    """A kind of operation. API tokens carry permissions as scopes."""

    READ = "read"  # see the queue, alerts, cards, merchants, devices and lists
    OWN = "own"  # manage one's own saved views and tokens
    WORK = "work"  # claim, snooze and judge alerts, and ask the assistant
    PROPOSE = "propose"  # propose a change of the lists or of the next steps
    LEAD = "lead"  # judge escalated alerts and many alerts at once, take over claims, see the leads' page
    APPROVE = "approve"  # approve or reject what somebody else has proposed
    AUDIT = "audit"  # read the audit trail
    ADMINISTER = "administer"  # manage users and webhooks


_ANALYST = frozenset({Permission.READ, Permission.OWN, Permission.WORK, Permission.PROPOSE})
_LEAD = _ANALYST | {Permission.LEAD, Permission.APPROVE, Permission.AUDIT}
PERMISSIONS: Final[dict[Role, frozenset[Permission]]] = {
    Role.ANALYST: _ANALYST,
    Role.LEAD: _LEAD,
    Role.ADMIN: _LEAD | {Permission.ADMINISTER},
    Role.AUDITOR: frozenset({Permission.READ, Permission.OWN, Permission.AUDIT}),
}


class Actor(Struct, frozen=True):
    """Who does something: a user's name and permissions. ``limited_to`` holds the scopes of a token; None means all."""

    name: str
    role: Role
    limited_to: frozenset[Permission] | None = None

    @property
    def permissions(self) -> frozenset[Permission]:
        """What the actor may do."""
        allowed = PERMISSIONS[self.role]
        return allowed if self.limited_to is None else allowed & self.limited_to

    def may(self, permission: Permission) -> bool:
        """Return whether the actor has a permission."""
        return permission in self.permissions

    def require(self, permission: Permission) -> None:
        """
        Check that the actor has a permission.

        Raises:
            AccessError: if not.
        """
        if not self.may(permission):
            token = "" if self.limited_to is None else " with this token"
            raise AccessError(f"{self.name} ({self.role}) may not do this{token}: it needs the permission {permission!r}")
