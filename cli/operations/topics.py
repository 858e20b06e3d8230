"""``whyflag topics``."""

import click


@click.group()
def command() -> None:
    """Create the Kafka topics, and print or create the ACLs of each role."""


@command.command()
@click.option("--partitions", type=click.IntRange(1, 10_000), default=12, show_default=True, help="Partitions per topic.")
@click.option("--replication", type=click.IntRange(1, 10), default=1, show_default=True, help="Use 3 in production.")
def create(partitions: int, replication: int) -> None:
    """Create missing topics. Existing topics are not changed."""
    from core.settings import read_settings
    from streams.kafka.clients import create_topics

    made, found = create_topics(read_settings(), partitions, replication)
    click.echo(f"created: {', '.join(made) or 'none'}")
    click.echo(f"already there, not changed: {', '.join(found) or 'none'}")


@command.command()
@click.option("--create", is_flag=True, help="Create the ACLs in Kafka instead of printing them.")
@click.option(
    "--role",
    "only",
    type=click.Choice(["producer", "score", "explain", "archive", "console", "auditor", "reader"]),
    help="Limit the output to one role.",
)
@click.option(
    "--principal",
    default="User:whyflag-{role}",
    show_default=True,
    help="Kafka principal of each role; {role} is replaced by the role's name.",
)
def acls(create: bool, only: str | None, principal: str) -> None:
    """
    Print the minimal ACLs of each role as arguments for kafka-acls.sh, or create them.

    Only workers may write to internal topics: anyone who can write to a checkpoint topic can change decisions.
    """
    from core.settings import read_settings
    from streams.kafka.acls import Role, commands, create_acls
    from streams.kafka.acls import acls as entries

    roles = [Role(only)] if only else list(Role)
    names = {role: principal.replace("{role}", role.value) for role in roles}
    if create:
        create_acls(read_settings(), [entry for role in roles for entry in entries(role, names[role])])
        click.echo(f"created the ACLs of {', '.join(names.values())}")
        return
    for role in roles:
        click.echo(f"# {role.value}")
        for line in commands(role, names[role]):
            click.echo(line)
