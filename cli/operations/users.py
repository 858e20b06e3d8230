"""``whyflag users``."""

from typing import TYPE_CHECKING

import click

from cli.identity import opened_queue, operator

if TYPE_CHECKING:
    from analyst.access.accounts import Accounts
    from analyst.queue import Queue

_ROLES = click.Choice(["analyst", "lead", "admin", "auditor"])
_role = click.option("--role", type=_ROLES, default="analyst", show_default=True)


@click.group()
def command() -> None:
    """Add and invite users of the console, change their roles."""


@command.command("list")
def list_() -> None:
    """List all users."""
    with opened_queue() as queue:
        users = _accounts(queue).all()
    for user in users:
        password = "" if user.has_password else ", without a password"
        click.echo(f"{user.name:<24} {user.role}{password}{', disabled' if user.disabled else ''}")
    if not users:
        click.echo("no users yet: run `whyflag users invite NAME --role admin`")


@command.command()
@click.argument("name")
@_role
def invite(name: str, role: str) -> None:
    """Print a one-time link with which a new or existing user chooses a password."""
    from analyst.access.roles import Role
    from core.settings import read_settings

    settings = read_settings()
    with opened_queue() as queue:
        secret = _accounts(queue).invite(operator(queue), name, Role(role))
    base = settings.console_url or f"http://{settings.console_host}:{settings.console_port}"
    click.echo(f"{base}/invitation/{secret}")


@command.command()
@click.argument("name")
@_role
def add(name: str, role: str) -> None:
    """Add a user whom a proxy signs in."""
    from analyst.access.roles import Role

    with opened_queue() as queue:
        _accounts(queue).add(operator(queue), name, Role(role))
    click.echo(f"user {name} added as {role}")


@command.command()
@click.argument("name")
@click.option("--role", type=_ROLES, default=None, help="New role. [default: unchanged]")
@click.option("--disable/--enable", default=None, help="Disable or enable the user. [default: unchanged]")
def change(name: str, role: str | None, disable: bool | None) -> None:
    """Change a user's role, disable or enable a user. The user's sessions and tokens end."""
    from analyst.access.roles import Role
    from core.errors import NotFoundError

    with opened_queue() as queue:
        accounts = _accounts(queue)
        user = accounts.get(name)
        if user is None:
            raise NotFoundError(f"no user {name}: `whyflag users list` shows all")
        accounts.change(operator(queue), name, Role(role) if role else user.role, user.disabled if disable is None else disable)
    click.echo(f"user {name} changed")


def _accounts(queue: "Queue") -> "Accounts":
    from analyst.access.accounts import Accounts
    from analyst.access.throttle import Throttle

    return Accounts(queue.database, queue.clock, Throttle(queue.database, queue.clock))
