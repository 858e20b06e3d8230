"""``whyflag bundles``: manage the bundle store, its champion and its challenger."""

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.identity import audited_change
from cli.options import transactions_options
from cli.progress import stages

if TYPE_CHECKING:
    from models.bundles.store import BundleStore

_store = click.option(
    "--store", type=click.Path(path_type=Path, file_okay=False), default="bundles", show_default=True, help="Folder of the store."
)


@click.group()
def command() -> None:
    """Manage a store of bundles and rules: add, challenge, promote and roll back while workers run."""


@command.command("list")
@_store
def list_(store: Path) -> None:
    """List the store's bundles, its champion and challenger, and all champions so far."""
    from models.bundles.store import BundleStore

    held = BundleStore(store)
    current = held.current
    champion = current.champions[-1].bundle if current.champions else ""
    for version in held.versions():
        role = "champion" if version == champion else "challenger" if version == current.challenger else ""
        click.echo(f"{version}  {role}".rstrip())
    if not held.versions():
        click.echo(f"{store} holds no bundle: add one with `whyflag bundles add FOLDER`")
    for past in reversed(current.champions):
        click.echo(f"{past.since}  {past.decider:<22} by {past.by}: {past.why}")


@command.command()
@_store
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--challenge", is_flag=True, help="Make it the challenger, which scores in shadow mode.")
def add(store: Path, folder: Path, challenge: bool) -> None:
    """Copy a bundle into the store."""
    from core.settings import read_settings
    from models.bundles.signing import signing_key
    from models.bundles.store import BundleStore

    held = BundleStore(store)
    version = held.add(folder)
    if challenge:
        with audited_change() as audited:
            held.challenge(version, signing_key(read_settings()))
            audited.record("challenger", version, str(store))
    click.echo(f"bundle {version} in {store}{', scoring in shadow' if challenge else ''}")


@command.command()
@_store
@click.argument("version", required=False, default="")
def challenge(store: Path, version: str) -> None:
    """Make a bundle the challenger, which scores in shadow mode. Without a version, remove the challenger."""
    from core.settings import read_settings
    from models.bundles.signing import signing_key
    from models.bundles.store import BundleStore

    with audited_change() as audited:
        BundleStore(store).challenge(version, signing_key(read_settings()))
        audited.record("challenger", version or "none", str(store))
    click.echo(f"challenger {version} scores in shadow mode" if version else "no challenger")


@command.command()
@_store
@click.argument("version")
@transactions_options(required=False)
@click.option("--rules", type=click.Path(path_type=Path, dir_okay=False), help="Rules to use. [default: the champion's]")
@click.option("--no-rules", is_flag=True, help="Promote the bundle without rules.")
@click.option("--why", required=True, help="Reason, recorded in the store.")
@click.option("--despite-gates", is_flag=True, help="Promote even if a gate fails.")
def promote(
    store: Path, version: str, transactions: Path | None, mapping: str, labels: Path | None, rules: Path | None, no_rules: bool,
    why: str, despite_gates: bool,
) -> None:  # fmt: skip
    """
    Make a bundle the champion if it passes the gates. Running workers switch to it at the end of their epoch.

    The gates need --transactions. For the champion itself, only the rules can change, and there are no gates.
    """
    from core.errors import InputError
    from core.settings import read_settings
    from models.bundles.signing import signing_key
    from models.bundles.store import BundleStore

    held = BundleStore(store)
    bundle, champion = held.open(version), held.champion
    if rules is not None:
        kept = held.add_rules(rules, bundle.spec.feature_names)
    else:
        kept = champion.rules if champion and not no_rules else ""
    if champion is not None and (champion.bundle, champion.rules) == (version, kept):
        raise InputError(f"bundle {version} is the champion already, with the same rules: there is nothing to promote")
    passed = True
    if champion is not None and champion.bundle == version:
        click.echo("only the rules change: there are no gates to pass")
    elif transactions is None:
        raise InputError("the gates need past transactions: add --transactions and, unless the file has them, --labels")
    else:
        passed = pass_gates(held, version, transactions, mapping, labels)
    if not passed and not despite_gates:
        raise InputError("not promoted: a gate failed. To promote anyway, use --despite-gates; the store records that")
    reason = why if passed else f"{why} (despite the gates)"
    with audited_change() as audited:
        promoted = held.promote(version, kept, audited.name, reason, signing_key(read_settings()), champion)
        audited.record("promoted", promoted.decider, reason)
    click.echo(f"champion {promoted.decider}")


@command.command()
@_store
@click.option("--why", required=True, help="Reason, recorded in the audit trail.")
@click.option(
    "--unsigned", is_flag=True, help="Sign what nobody has signed, without WHYFLAG_BUNDLE_PUBLIC_KEY: to begin with signatures."
)
def sign(store: Path, why: str, unsigned: bool) -> None:
    """
    Sign the champions so far, with their rules, and the challenger, for example with a new key.

    WHYFLAG_BUNDLE_SIGNING_KEY signs. What none of the keys in WHYFLAG_BUNDLE_PUBLIC_KEY has signed is not signed again.
    """
    from core.errors import InputError
    from core.settings import read_settings
    from models.bundles.signing import signing_key, verifying_keys
    from models.bundles.store import BundleStore

    settings = read_settings()
    key = signing_key(settings)
    if key is None:
        raise InputError("WHYFLAG_BUNDLE_SIGNING_KEY is not set: set it to the PEM file of the private key")
    keys = verifying_keys(settings)
    if bool(keys) == unsigned:
        raise InputError(
            "set WHYFLAG_BUNDLE_PUBLIC_KEY, so that only what you have signed is signed again, or use --unsigned without it"
        )
    with audited_change() as audited:
        signed, refused = BundleStore(store, keys).sign(key)
        audited.record("signed", f"{len(signed)} bundles", f"{why}: {', '.join(signed)}")
    for version in signed:
        click.echo(f"signed {version}")
    for version, reason in refused.items():
        click.echo(f"not signed: {version}: {reason}", err=True)
    if not signed and not refused:
        click.echo(f"{store} has neither champion nor challenger: nothing to sign")


@command.command()
@_store
@click.option("--why", required=True, help="Reason, recorded in the store.")
def rollback(store: Path, why: str) -> None:
    """Make the previous champion the champion again."""
    from models.bundles.store import BundleStore

    with audited_change() as audited:
        champion = BundleStore(store).rollback(audited.name, why)
        audited.record("rolled back", champion.decider, why)
    click.echo(f"champion {champion.decider}")


@command.command()
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="Number to show, highest amounts first.")
@click.option("--json", "as_json", is_flag=True, help="Print all disagreements as JSON Lines.")
def disagreements(limit: int, as_json: bool) -> None:
    """List the decisions in Kafka on which the challenger disagrees with the champion."""
    import msgspec

    from core.messages import Disagreement, encode
    from core.money import money
    from core.settings import read_settings
    from core.topics import DISAGREEMENTS
    from streams.kafka.clients import Observer

    observer = Observer(read_settings(), [DISAGREEMENTS])
    by_identity: dict[tuple[object, ...], Disagreement] = {}  # a record that was delivered twice counts once
    for record in observer.all():
        with suppress(msgspec.MsgspecError, TypeError):  # skip records that are not disagreements
            one = msgspec.json.decode(record.value, type=Disagreement)
            by_identity[one.card_id, one.transaction_id, one.event_time, one.amount, one.currency] = one
    observer.close()
    found = list(by_identity.values())
    if as_json:
        for disagreement in found:
            click.echo(encode(disagreement).decode())
        return
    click.echo(f"{len(found):,} disagreements")
    for one in sorted(found, key=lambda each: -each.amount)[:limit]:
        before = "n/a" if one.champion_probability is None else f"{one.champion_probability:.4f}"
        click.echo(
            f"{one.transaction_id:<24} {money(one.amount, one.currency):>16}  {one.champion_outcome.value} {before} → "
            f"{one.challenger_outcome.value} {one.challenger_probability:.4f}"
        )


def pass_gates(store: "BundleStore", version: str, transactions: Path, mapping: str, labels: Path | None) -> bool:
    """Measure a bundle against the champion, print the result of each gate, and return whether all gates passed."""
    from core.errors import BundleError
    from core.settings import read_settings
    from training.data.mapping import load_mapping
    from training.data.readers import TransactionFile
    from training.evaluation.measures import score_file
    from training.gates import gates

    settings = read_settings()
    challenger, champion, readable = store.open(version), None, True
    if store.champion:
        try:
            champion = store.open(store.champion.bundle)
        except BundleError as error:  # after an upgrade, a bundle of an older format
            click.echo(f"FAILED  {'champion':<28} cannot be compared: {error}")
            readable = False
    with stages() as progress:

        def seen(bundle: Any) -> Any:
            source = TransactionFile(transactions, load_mapping(mapping), settings.privacy)
            return score_file(source, labels, bundle, settings.privacy, progress, challenger)

        found = gates(challenger, seen(challenger), champion, seen(champion) if champion else None)
    for gate in found:
        click.echo(f"{'passed' if gate.passed else 'FAILED'}  {gate.name:<28} {gate.found}")
    return readable and all(gate.passed for gate in found)
