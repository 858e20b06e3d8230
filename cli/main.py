"""``whyflag``: the command group, which imports a command only when it is called, so that ``--help`` is fast."""

import importlib
import os
import sys
from typing import NamedTuple

import click

from core.errors import WhyflagError


class Command(NamedTuple):
    """A command: the module that defines it, and its line in ``--help``. The module is imported when the command is called."""

    module: str
    help: str


COMMANDS = {
    "demo": Command("cli.demo", "Simulate data, train a model, and run the whole pipeline on an embedded broker."),
    "simulate": Command("cli.modelling.simulate", "Write simulated transactions, labels and the ground truth."),
    "train": Command("cli.modelling.train", "Train, calibrate and evaluate a model bundle from a file."),
    "tune": Command("cli.modelling.tune", "Search for a training recipe."),
    "report": Command("cli.modelling.report", "Write an HTML report with charts of a bundle's performance."),
    "backtest": Command("cli.modelling.backtest", "Show what policies would have decided on past transactions."),
    "bundles": Command("cli.modelling.bundles", "Manage the bundle store: add, challenge, promote and roll back bundles."),
    "retrain": Command(
        "cli.modelling.retrain", "Train a challenger on new labels; optionally promote it if it passes the gates."
    ),
    "benchmark": Command("cli.modelling.benchmark", "Compare the models with published results."),
    "replay": Command("cli.modelling.replay", "Score and decide every transaction in a file, without Kafka."),
    "topics": Command("cli.operations.topics", "Create the Kafka topics and their ACLs."),
    "produce": Command("cli.operations.produce", "Send a file of transactions to Kafka."),
    "state": Command("cli.operations.state", "Rebuild the state that workers keep in Kafka."),
    "worker": Command("cli.operations.worker", "Run a worker: score, explain or archive."),
    "archive": Command("cli.operations.archive", "Load past transactions and labels from files into the archive."),
    "cases": Command("cli.casework.cases", "Inspect, correct and rebuild the casebook of past alerts."),
    "investigate": Command("cli.casework.investigate", "Let a language model investigate an alert with read-only tools."),
    "evaluate": Command("cli.casework.evaluate", "Compare language models and prompts by the explanations they write."),
    "sar": Command("cli.casework.sar", "Draft the narrative of a suspicious-activity report on an alert."),
    "console": Command("cli.operations.console", "Serve the analysts' web console."),
    "users": Command("cli.operations.users", "Add and invite users of the console, change their roles."),
    "lists": Command("cli.operations.lists", "Apply the approved block and allow lists to the rules of a bundle store."),
    "audit": Command("cli.operations.audit", "Verify the audit trail, and show how an alert was decided and judged."),
    "database": Command("cli.operations.database", "Migrate the SQL databases, forward or back."),
    "purge": Command("cli.operations.purge", "Delete closed alerts that are older than the retention."),
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
    Real-time card-fraud detection that explains its alerts.

    Settings come from WHYFLAG_* environment variables: see docs/reference/settings.md.
    """


def main() -> None:
    """Run the command line. Print known errors in one line, without a traceback."""
    try:
        whyflag(standalone_mode=False)
    except click.exceptions.Abort:
        click.echo("stopped", err=True)
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        if "unexpected extra argument" in error.format_message():
            click.echo("If the shell expanded a pattern such as days/*.csv, put it in quotes.", err=True)
        sys.exit(error.exit_code)
    except click.exceptions.Exit as done:
        sys.exit(done.exit_code)
    except WhyflagError as error:
        _report(error)
        sys.exit(1)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        # for example a full disk, a folder without write permission, or a port in use
        _report(error)
        sys.exit(1)


def _report(error: Exception) -> None:
    """Tell the user of a command, or the log of a long-running program, why it ends."""
    logs = sys.modules.get("core.logs")  # a command that writes no logs does not import it
    if logs is None or not logs.log_end(error):
        click.echo(f"whyflag: {error}", err=True)


if __name__ == "__main__":
    main()
