"""``whyflag``: commands are imported when they are called, so that ``--help`` answers at once."""

import importlib
import os
import sys
from typing import NamedTuple

import click

from core.errors import WhyflagError


class Command(NamedTuple):
    """A command: the module that defines it, imported when it is called, and its line in ``--help``."""

    module: str
    help: str


COMMANDS = {
    "demo": Command("cli.demo", "Simulate, train, and watch the whole pipeline run on an embedded broker."),
    "simulate": Command("cli.modelling.simulate", "Write simulated transactions, labels and their truth."),
    "train": Command("cli.modelling.train", "Train, calibrate and evaluate a model bundle from a file."),
    "tune": Command("cli.modelling.tune", "Search for a recipe to train by."),
    "report": Command("cli.modelling.report", "Write a page with pictures of what a bundle does."),
    "backtest": Command("cli.modelling.backtest", "What policies would have decided over history."),
    "bundles": Command("cli.modelling.bundles", "Store, challenge, promote and roll back bundles."),
    "retrain": Command("cli.modelling.retrain", "Train a challenger on new labels; promote it through the gates."),
    "benchmark": Command("cli.modelling.benchmark", "Measure the models against published results."),
    "replay": Command("cli.modelling.replay", "Decide every transaction of a file, without Kafka."),
    "topics": Command("cli.operations.topics", "Make the Kafka topics."),
    "produce": Command("cli.operations.produce", "Write a file of transactions into Kafka."),
    "state": Command("cli.operations.state", "Look after the state that workers keep in Kafka."),
    "worker": Command("cli.operations.worker", "Run a worker: score, explain or archive."),
    "archive": Command("cli.operations.archive", "Fill the archive from files of past transactions."),
    "cases": Command("cli.casework.cases", "Look after the casebook of past alerts."),
    "investigate": Command("cli.casework.investigate", "Let a language model look into an alert with read-only tools."),
    "evaluate": Command("cli.casework.evaluate", "Compare language models and prompts by what they write."),
    "sar": Command("cli.casework.sar", "Draft a suspicious-activity narrative about an alert."),
    "console": Command("cli.operations.console", "Serve the analyst's queue and pages."),
    "schemas": Command("cli.operations.schemas", "Write the JSON Schemas of the messages."),
}


class _Lazy(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(COMMANDS[name].module).command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.help) for name, command in COMMANDS.items()])


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="whyflag")
def whyflag() -> None:
    """
    Real-time card-fraud detection that explains itself.

    Settings come from WHYFLAG_* environment variables: see docs/settings.md.
    """


def main() -> None:
    """Run; an error that whyflag knows is told in one line, without a traceback."""
    try:
        whyflag(standalone_mode=False)
    except click.exceptions.Abort:
        click.echo("stopped", err=True)
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.exceptions.Exit as done:
        sys.exit(done.exit_code)
    except WhyflagError as error:
        click.echo(f"whyflag: {error}", err=True)
        sys.exit(1)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        # a full disk, a folder that may not be written, a port that is taken
        click.echo(f"whyflag: {error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
