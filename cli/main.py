"""``whyflag``: commands are imported when they are called, so that ``--help`` answers at once."""

import importlib
import os
import sys

import click

from core.errors import WhyflagError

COMMANDS = {
    "demo": "Simulate, train, and watch the whole pipeline run on an embedded broker.",
    "simulate": "Write simulated transactions, labels and their truth.",
    "train": "Train, calibrate and evaluate a model bundle from a file.",
    "tune": "Search for a recipe to train by.",
    "report": "Write a page with pictures of what a bundle does.",
    "backtest": "What policies would have decided over history.",
    "bundles": "Store, challenge, promote and roll back bundles.",
    "retrain": "Train a challenger on new labels; promote it through the gates.",
    "benchmark": "Measure the models against published results.",
    "replay": "Decide every transaction of a file, without Kafka.",
    "topics": "Make the Kafka topics.",
    "produce": "Write a file of transactions into Kafka.",
    "state": "Look after the state that workers keep in Kafka.",
    "worker": "Run a worker: score, explain or archive.",
    "archive": "Fill the archive from files of past transactions.",
    "cases": "Look after the casebook of past alerts.",
    "investigate": "Let a language model look into an alert with read-only tools.",
    "evaluate": "Compare language models and prompts by what they write.",
    "sar": "Draft a suspicious-activity narrative about an alert.",
    "console": "Serve the analyst's queue and pages.",
    "schemas": "Write the JSON Schemas of the messages.",
}


class _Lazy(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"cli.{name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


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
