"""``whyflag lists``."""

from pathlib import Path

import click

from cli.identity import audited_change, opened_queue


@click.group()
def command() -> None:
    """Apply the approved block and allow lists to the rules of a bundle store."""


@command.command()
@click.option("--store", type=click.Path(path_type=Path), default=None, help="Bundle store. [default: WHYFLAG_BUNDLE]")
def apply(store: Path | None) -> None:
    """
    Replace the list files of the champion's rules and promote the champion with them.

    The rules refer to the files by name: block_card.txt, allow_merchant.txt and so on. Running workers switch at the end of their
    epoch. Nothing happens if the lists have not changed, so the command can run every minute.
    """
    from analyst.access.roles import Permission
    from analyst.proposals import Proposals, list_files
    from core.errors import InputError
    from core.settings import read_settings
    from models.bundles.signing import signing_key
    from models.bundles.store import BundleStore

    settings = read_settings()
    place = store or settings.bundle_dir
    if not BundleStore.at(place):
        raise InputError(f"{place} is not a bundle store: `whyflag bundles add` makes one")
    with audited_change() as audited:
        audited.actor.require(Permission.APPROVE)
        files = list_files(Proposals(audited.queue.database, audited.queue.clock).entries())
        champion = BundleStore(place).replace_lists(files, audited.name, "lists of the console", signing_key(settings))
        if champion is not None:
            entries = sum(content.count("\n") for content in files.values())
            audited.record("lists applied", champion.decider, f"{entries} entries")
    click.echo("the lists have not changed" if champion is None else f"champion {champion.decider}")


@command.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
def export(folder: Path) -> None:
    """Write the approved lists to a folder, one file per list, for rules outside a store."""
    from analyst.proposals import Proposals, list_files

    with opened_queue() as queue:
        files = list_files(Proposals(queue.database, queue.clock).entries())
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_text(content, encoding="utf-8")
    click.echo(f"{len(files)} lists in {folder}")
