"""``whyflag topics``."""

import click


@click.group()
def command() -> None:
    """Make the Kafka topics, and say who needs which rights."""


@command.command()
@click.option("--partitions", type=click.IntRange(1, 10_000), default=12, show_default=True, help="Partitions a topic.")
@click.option("--replication", type=click.IntRange(1, 10), default=1, show_default=True, help="3 in production.")
def create(partitions: int, replication: int) -> None:
    """Make the topics that are missing; change none that exists."""
    from core.settings import read_settings
    from streams.kafka.clients import create_topics

    made, found = create_topics(read_settings(), partitions, replication)
    click.echo(f"made: {', '.join(made) or 'none'}")
    click.echo(f"already there, left as they are: {', '.join(found) or 'none'}")


@command.command()
@click.option("--create", is_flag=True, help="Create them in Kafka instead of printing them.")
@click.option(
    "--role",
    "only",
    type=click.Choice(["producer", "score", "explain", "archive", "console", "reader"]),
    help="Of one role only.",
)
@click.option(
    "--principal", default="User:whyflag-{role}", show_default=True, help="Kafka's name of a role's user; {role} is filled in."
)
def acls(create: bool, only: str | None, principal: str) -> None:
    """
    Print the least rights that each role needs, as arguments of kafka-acls.sh, or create them.

    Only workers may write to internal topics: anyone who can write to a checkpoint topic can change decisions.
    """
    from core.settings import read_settings
    from streams.kafka.acls import Role, commands, create_acls
    from streams.kafka.acls import acls as entries

    roles = [Role(only)] if only else list(Role)
    names = {role: principal.replace("{role}", role.value) for role in roles}
    if create:
        create_acls(read_settings(), [entry for role in roles for entry in entries(role, names[role])])
        click.echo(f"created the rights of {', '.join(names.values())}")
        return
    for role in roles:
        click.echo(f"# {role.value}")
        for line in commands(role, names[role]):
            click.echo(line)
