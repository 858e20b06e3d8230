"""``whyflag topics``."""

import click


@click.group()
def command() -> None:
    """Make the Kafka topics."""


@command.command()
@click.option("--partitions", type=click.IntRange(1, 10_000), default=12, show_default=True, help="Partitions a topic.")
@click.option("--replication", type=click.IntRange(1, 10), default=1, show_default=True, help="3 in production.")
def create(partitions: int, replication: int) -> None:
    """Make the topics that are missing; change none that exists."""
    from core.settings import read_settings
    from streams.clients import create_topics

    made, found = create_topics(read_settings(), partitions, replication)
    click.echo(f"made: {', '.join(made) or 'none'}")
    click.echo(f"already there, left as they are: {', '.join(found) or 'none'}")
