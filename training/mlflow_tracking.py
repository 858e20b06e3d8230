"""Tracking of bundles in MLflow: a run with parameters, metrics and files, and a version in the model registry."""

import warnings
from pathlib import Path
from typing import Any

import msgspec

from core.errors import InputError
from models.bundles.metrics import BundleMetrics

try:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import mlflow
        from mlflow.exceptions import MlflowException
except ImportError:
    raise InputError("--mlflow needs the extra `mlflow`: pip install 'whyflag[mlflow]'") from None

EXPERIMENT = MODEL = "whyflag"
_CHALLENGER = "challenger"


def record(tracking: str, folder: Path, version: str, metrics: BundleMetrics) -> str:
    """
    Log a bundle's folder as a run at a tracking URI, and register it as a version of the model ``whyflag``.

    The new version gets the alias ``challenger``. Return its number in the registry.

    Raises:
        InputError: if MLflow refuses the bundle or cannot be reached.
    """
    recorded = msgspec.to_builtins(metrics)
    try:
        client = mlflow.MlflowClient(tracking_uri=tracking)
        found = client.get_experiment_by_name(EXPERIMENT)
        experiment = (
            found.experiment_id if found else client.create_experiment(EXPERIMENT, artifact_location=_artifacts(tracking))
        )
        run = client.create_run(experiment, run_name=version)
        identity = run.info.run_id
        for name, value in _flat({key: recorded[key] for key in ("recipe", "training", "split", "data", "environment")}).items():
            client.log_param(identity, name, value)
        for name, value in _flat({key: recorded[key] for key in ("test", "novel")}).items():
            if isinstance(value, int | float):
                client.log_metric(identity, name, float(value))
        client.set_tag(identity, "bundle", version)
        client.log_artifacts(identity, str(folder), "bundle")
        client.set_terminated(identity)
        if not any(model.name == MODEL for model in client.search_registered_models()):
            client.create_registered_model(MODEL)
        registered = client.create_model_version(MODEL, f"{run.info.artifact_uri}/bundle", identity, tags={"bundle": version})
        client.set_registered_model_alias(MODEL, _CHALLENGER, registered.version)
        return str(registered.version)
    except (MlflowException, OSError) as error:
        raise InputError(f"MLflow at {tracking} could not store the bundle: {str(error).splitlines()[0]}") from None


def _artifacts(tracking: str) -> str | None:
    """
    Return where to store files: None to let a server choose, or a folder beside a local SQLite database.

    For a local database MLflow's own default would be the current folder.
    """
    if not tracking.startswith("sqlite:///"):
        return None
    return (Path(tracking.removeprefix("sqlite:///")).absolute().parent / "mlartifacts").as_uri()


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat
