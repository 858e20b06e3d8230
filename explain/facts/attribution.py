"""Contribution of each feature to an alert's score."""

import math

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from core.errors import InvalidEvent, Refusal
from core.messages import Alert
from models.attribution import contributions
from models.bundles.bundle import Bundle


class Attribution(Struct, frozen=True):
    """
    An alert's features and their contributions to the score.

    ``x`` (float32 [F]) holds the features, and ``shap`` (float32 [F]) their TreeSHAP contributions in log-odds. ``bias`` is the
    model's base value in log-odds, to which the contributions are added.
    """

    x: npt.NDArray[np.float32]
    shap: npt.NDArray[np.float32]
    bias: float


def attribute(alert: Alert, bundle: Bundle) -> Attribution:
    """
    Return the contributions of an alert's features to the score of a bundle's model (Lundberg, Erion and Lee, 2018).

    Raises:
        InvalidEvent: if the alert's features differ from the bundle's.
    """
    names = bundle.spec.feature_names
    if alert.features.keys() != set(names):
        raise InvalidEvent("the alert's features do not match the bundle that it names", Refusal.NOT_EXPLAINABLE)
    values = (alert.features[name] for name in names)
    x = np.array([math.nan if value is None else value for value in values], np.float32)
    rows, biases = contributions(bundle.booster, x[None, :])
    return Attribution(x, rows[0], float(biases[0]))
