"""``whyflag audit``."""

import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import click

from cli.identity import audited_change, opened_queue, operator

if TYPE_CHECKING:
    from core.messages import AuditAnchor
    from core.settings import Settings


@click.group()
def command() -> None:
    """Verify the audit trail, change its key, accept a loss, and show how an alert was decided and judged."""


@command.command()
@click.option("--without-kafka", is_flag=True, help="Do not compare the trail with its anchors in Kafka.")
def verify(without_kafka: bool) -> None:
    """
    Check the audit trail and its anchors in Kafka, and compare alerts, verdicts, cases, proposals, lists and users with it.

    Exits with status 1 if anything is wrong.
    """
    from analyst.verification import verify as verify_trail
    from core.settings import read_settings

    settings = read_settings()
    anchors = None if without_kafka else _anchors(settings)
    with opened_queue() as queue:
        found = verify_trail(queue, anchors)
    click.echo(f"{found.entries:,} entries, {found.anchors:,} anchors in Kafka")
    if found.unkeyed:
        click.echo(f"the first {found.unkeyed:,} entries are from version 0.1, which signed without a key")
    if not settings.audit_key:
        click.echo("WHYFLAG_AUDIT_KEY is not set: whoever can write to the database can also sign the trail again", err=True)
    for number in found.key_changes:
        click.echo(f"entry {number} changed the audit key")
    for loss, entry in found.losses:
        click.echo(
            f"entries {loss.first} to {loss.newest} or later were lost, which {entry.actor} accepted in entry {entry.number}: {loss.why}"
        )
    if found.first_broken is not None:
        click.echo(f"BROKEN: entry {found.first_broken} was changed, removed, inserted or re-signed")
    for contradiction in found.contradictions:
        click.echo(f"CONTRADICTION: {contradiction}")
    if not found.intact:
        sys.exit(1)
    click.echo("the audit trail is intact, and alerts, verdicts, cases, proposals, lists and users agree with it")


@command.command("change-key")
@click.option("--without-kafka", is_flag=True, help="Do not compare the trail with its anchors in Kafka before.")
@click.option("--from-no-key", is_flag=True, help="The trail was signed without a key so far.")
@click.option("--despite-broken", is_flag=True, help="Change the key even if the trail is broken.")
def change_key(without_kafka: bool, from_no_key: bool, despite_broken: bool) -> None:
    """
    Begin to sign the audit trail with another key.

    WHYFLAG_AUDIT_KEY is the new key, WHYFLAG_AUDIT_FORMER_KEYS all earlier ones. Consoles with the former key refuse changes from then on.
    """
    from analyst.access.roles import Permission
    from core.errors import InputError
    from core.settings import read_settings

    settings = read_settings()
    if not settings.audit_key:
        raise InputError("WHYFLAG_AUDIT_KEY is not set: set it to the new key")
    anchors = () if without_kafka else _anchors(settings)
    with opened_queue() as queue:
        actor = operator(queue)
        actor.require(Permission.ADMINISTER)
        with queue.database.changing() as connection:
            broken = queue.database.audit.check(connection, anchors).first_broken
            if broken is not None and not despite_broken:
                raise InputError(
                    f"the trail is broken at entry {broken}: find out why first (`whyflag audit verify`), or use --despite-broken"
                )
            number = queue.database.audit.change_key(connection, actor.name, from_no_key, despite_broken)
    click.echo(f"entry {number} changed the audit key")


@command.command("accept-loss")
@click.option("--why", required=True, help="Why the entries are missing, for example which backup was restored.")
def accept_loss(why: str) -> None:
    """
    Accept that a restored backup lacks entries which anchors in Kafka name. `whyflag audit verify` shows this from then on.

    The acceptance is written to the trail and to the topic audit-anchors: the Kafka user must be able to read and write this topic.
    """
    from analyst.access.roles import Permission
    from core.messages import encode
    from core.settings import read_settings
    from core.topics import AUDIT_ANCHORS
    from streams.kafka.clients import Sender

    settings = read_settings()
    anchors = _anchors(settings)
    with audited_change() as audited:
        audited.actor.require(Permission.ADMINISTER)
        with audited.queue.database.changing() as connection:
            loss, anchor = audited.queue.database.audit.accept_loss(connection, anchors, audited.name, why)
    sender = Sender(settings, 0)  # if Kafka refuses it, the entry does not count, and the command can be called again
    sender.send(AUDIT_ANCHORS, b"audit", encode(anchor))
    sender.close()
    click.echo(f"accepted: entries {loss.first} to {loss.newest} or later are lost")


def _anchors(settings: "Settings") -> "list[AuditAnchor]":
    """
    Return the published heads of the trail.

    Raises:
        BrokerError: if Kafka does not answer.
    """
    import msgspec

    from core.messages import decode_audit_anchor
    from core.topics import AUDIT_ANCHORS
    from streams.kafka.clients import Observer

    observer, found = Observer(settings, [AUDIT_ANCHORS]), []
    for record in observer.all():
        with suppress(msgspec.MsgspecError):
            found.append(decode_audit_anchor(record.value))
    observer.close()
    return found


@command.command()
@click.argument("alert_id")
def show(alert_id: str) -> None:
    """Show how an alert was decided: its event, features, bundle, rules and facts, and who did what with it."""
    from analyst.audit import entries
    from analyst.replay import decision_text
    from core.settings import read_settings

    settings = read_settings()
    with opened_queue() as queue:
        queued = queue.required(alert_id)
        with queue.reading() as connection:
            done = entries(connection, alert_id, limit=1_000)[::-1]
    click.echo(decision_text(queued, done, settings.bundle_dir))
