"""``whyflag evaluate``: compare language models and prompts."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from core.messages import Alert
    from core.settings import Settings
    from explain.explainer import Explainer


@click.group()
def command() -> None:
    """Measure the quality of explanations."""


@command.command()
@click.option("--bundle", type=click.Path(path_type=Path), default=None, help="Model bundle. [default: WHYFLAG_BUNDLE]")
@click.option(
    "--alerts",
    "alerts_file",
    type=click.Path(path_type=Path),
    required=True,
    help="alerts.jsonl as written by `whyflag replay --format jsonl`.",
)
@click.option("--count", type=click.IntRange(1), default=100, show_default=True, help="Alerts to use, from the end of the file.")
@click.option(
    "--model",
    "models",
    multiple=True,
    help="Model at WHYFLAG_LLM_URL, or NAME=URL for another server; repeatable. [default: WHYFLAG_LLM_MODEL]",
)
@click.option(
    "--prompt", "prompts", multiple=True, help="Prompt version or prompt file; repeatable. [default: WHYFLAG_LLM_PROMPT]"
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    default="explanations.html",
    show_default=True,
    help="HTML page to write.",
)
@click.option(
    "--judge", is_flag=True, help="Also let the models judge the alerts, with and without the explanation; needs --truth."
)
@click.option(
    "--truth",
    "truth_file",
    type=click.Path(path_type=Path, dir_okay=False),
    default=None,
    help="Parquet file with transaction_id and typology (`honest`: no fraud), as written by `whyflag simulate`.",
)
@click.option("--json", "json_out", type=click.Path(path_type=Path, dir_okay=False), default=None, help="JSON file for figures.")
def explanations(
    bundle: Path | None,
    alerts_file: Path,
    count: int,
    models: tuple[str, ...],
    prompts: tuple[str, ...],
    out: Path,
    judge: bool,
    truth_file: Path | None,
    json_out: Path | None,
) -> None:
    """Let models narrate a fixed set of alerts, and compare acceptance, coverage, length, speed and cost."""
    from datetime import UTC, datetime

    from rich.console import Console
    from rich.table import Table

    from cli.progress import stages
    from core.errors import InputError
    from core.messages import decode_alert
    from core.settings import read_settings
    from explain.casebook import Casebook, CasesInMemory, bundle_cases
    from explain.evaluation import as_json, evaluate, page, table
    from explain.explainer import Explainer
    from models.bundles.signing import verifying_keys
    from models.bundles.store import open_bundle

    settings = read_settings()
    loaded = open_bundle(bundle or settings.bundle_dir, verifying_keys(settings))
    try:
        lines = alerts_file.read_bytes().splitlines()[-count:]
        alerts = [decode_alert(line) for line in lines]
    except (OSError, ValueError) as error:
        raise InputError(
            f"{alerts_file} cannot be read as alerts ({error}): give the alerts.jsonl of `whyflag replay --format jsonl`"
        ) from None
    if not alerts:
        raise InputError(f"{alerts_file} holds no alerts")
    if judge and truth_file is None:
        raise InputError("--judge needs --truth: a Parquet file with transaction_id and typology")
    named = models or ((settings.llm_model,) if settings.llm_model else ())
    candidates = [_settings(name, settings) for name in named]
    if not candidates:
        click.echo("measuring the template only: to measure a language model, give --model or set WHYFLAG_LLM_MODEL", err=True)
    explainer = Explainer(loaded, Casebook(loaded, CasesInMemory(bundle_cases(loaded))))
    with stages() as progress:

        def heard(name: str, done: int) -> None:
            if done == 0:
                progress.stage(name, len(alerts))
            else:
                progress.advance(1)

        results = evaluate(explainer, alerts, candidates, prompts or (settings.llm_prompt,), heard)
    made = f"{len(alerts)} alerts of {alerts_file.name}, bundle {loaded.version}, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    out.write_text(page(results, made))
    if json_out:
        json_out.write_text(as_json(results))
    headings, rows = table(results)
    shown = Table(*headings, box=None, header_style="bold")
    for row in rows:
        shown.add_row(*row)
    Console(width=200).print(shown)
    for result in results:
        if result.faults:
            kinds = ", ".join(f"{kind} {number}" for kind, number in result.faults.items())
            click.echo(f"{result.model} · {result.prompt}: refused sentences by reason: {kinds}")
    click.echo(f"page: {out}")
    if judge and truth_file is not None:
        _judge(candidates, explainer, alerts, truth_file)


def _judge(models: "list[Settings]", explainer: "Explainer", alerts: "list[Alert]", truth_file: Path) -> None:
    """Let each model judge the alerts with and without the explanation, and print the results."""
    import pyarrow.parquet as pq

    from cli.progress import stages
    from core.errors import InputError
    from explain.judging import Case, judge
    from explain.narrators.client import language_model

    try:
        table = pq.read_table(truth_file, columns=["transaction_id", "typology"])
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{truth_file} cannot be read ({error}): give a Parquet file with transaction_id and typology") from None
    typology = dict(zip(table["transaction_id"].to_pylist(), table["typology"].to_pylist(), strict=True))
    known = [alert for alert in alerts if alert.transaction.transaction_id in typology]
    if not known:
        raise InputError(f"{truth_file} holds none of the alerts' transactions: give the truth file of the same transactions")
    cases = [Case(alert, explainer.explain(alert), typology[alert.transaction.transaction_id] != "honest") for alert in known]
    for settings in models:
        llm = language_model(settings)
        assert llm is not None
        with stages() as progress:

            def heard(name: str, done: int) -> None:
                if done == 0:
                    progress.stage(name, len(cases))
                else:
                    progress.advance(1)

            results = judge(llm, cases, None, settings.llm_concurrency, heard)
        for one in results:
            click.echo(
                f"{one.model} judged {one.answered} of {one.alerts} alerts, {one.condition}: "
                f"AUC {one.auc:.3f}, Brier score {one.brier:.3f}, {one.median_seconds:.1f} s each"
            )


def _settings(name: str, settings: "Settings") -> "Settings":
    from msgspec import structs

    from core.errors import InputError

    model, _, url = name.partition("=")
    if not url and not settings.llm_url and not settings.llm_class:
        raise InputError(f"--model {name}: name its server too, as in {name}=http://127.0.0.1:8000/v1, or set WHYFLAG_LLM_URL")
    return structs.replace(settings, llm_model=model, llm_url=url or settings.llm_url)
