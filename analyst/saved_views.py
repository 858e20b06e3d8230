"""Saved views: named filters of the queue, for their owner or for everybody."""

from msgspec import Struct
from sqlalchemy import delete, func, insert, or_, select

from analyst.access.roles import Actor, Permission
from analyst.database import Database
from analyst.listing import AlertFilter
from analyst.tables import saved_views
from core.errors import InputError, NotFoundError

_MOST = 50  # views of one person


class SavedView(Struct, frozen=True):
    """A named filter. ``query`` is the query part of the queue's address."""

    number: int
    owner: str
    name: str
    query: str
    shared: bool


class SavedViews:
    """The saved views of a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def save(self, actor: Actor, name: str, wanted: AlertFilter, shared: bool) -> int:
        """
        Save a filter under a name and return the view's number.

        Raises:
            AccessError: if the actor may not save views.
            InputError: if the name is empty or too long, or the actor has too many views.
        """
        actor.require(Permission.WORK if shared else Permission.OWN)
        if not 1 <= len(name.strip()) <= 64:
            raise InputError("give the view a name of 1 to 64 characters")
        row = {"owner": actor.name, "name": name.strip(), "query": wanted.query(), "shared": shared}
        with self._database.changing() as connection:
            own = select(func.count()).where(saved_views.c.owner == actor.name)
            if connection.execute(own).scalar_one() >= _MOST:
                raise InputError(f"you have {_MOST} saved views: delete one first")
            key = connection.execute(insert(saved_views).values(row)).inserted_primary_key
        return int(key[0]) if key else 0

    def delete(self, actor: Actor, number: int) -> None:
        """
        Delete one of the actor's views.

        Raises:
            AccessError: if the actor may not save views.
            NotFoundError: if the actor has no such view.
        """
        actor.require(Permission.OWN)
        with self._database.changing() as connection:
            which = (saved_views.c.number == number) & (saved_views.c.owner == actor.name)
            if not connection.execute(delete(saved_views).where(which)).rowcount:
                raise NotFoundError(f"you have no saved view {number}")

    def all(self, actor: Actor) -> list[SavedView]:
        """Return the actor's views and those that others share."""
        mine = or_(saved_views.c.owner == actor.name, saved_views.c.shared.is_(True))
        with self._database.reading() as connection:
            rows = connection.execute(select(saved_views).where(mine).order_by(saved_views.c.name, saved_views.c.number)).all()
        return [SavedView(row.number, row.owner, row.name, row.query, row.shared) for row in rows]
