"""``whyflag topics``."""

import click


@click.group()
def command() -> None:
    """Create the Kafka topics, and print or create the ACLs of each role."""


@command.command()
@click.option("--partitions", type=click.IntRange(1, 10_000), default=12, show_default=True, help="Partitions per topic.")
@click.option(
    "--replication",
    type=click.IntRange(1, 10),
    default=None,
    help="Replicas per partition. [default: 3, or the number of brokers]",
)
def create(partitions: int, replication: int | None) -> None:
    """
    Create missing topics. Existing topics are not changed: the command lists how they differ.

    With R replicas, a record counts as written once R-1 of them have it (min.insync.replicas).
    """
    from core.settings import read_settings
    from streams.kafka.clients import create_topics

    made = create_topics(read_settings(), partitions, replication)
    click.echo(f"created: {', '.join(made.created) or 'none'}")
    click.echo(f"already there, not changed: {', '.join(made.existing) or 'none'}")
    for difference in made.differences:
        click.echo(f"differs: {difference}")


@command.command()
@click.option("--create", is_flag=True, help="Create the ACLs in Kafka instead of printing them.")
@click.option(
    "--role",
    "only",
    type=click.Choice(["producer", "score", "explain", "archive", "console", "auditor", "retrain", "scaler", "reader"]),
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
        settings = read_settings()
        create_acls(settings, [entry for role in roles for entry in entries(role, names[role], settings.kafka_prefix)])
        click.echo(f"created the ACLs of {', '.join(names.values())}")
        return
    prefix = read_settings().kafka_prefix
    for role in roles:
        click.echo(f"# {role.value}")
        for line in commands(role, names[role], prefix):
            click.echo(line)
