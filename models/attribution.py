"""Feature contributions to a score: exact TreeSHAP (Lundberg, Erion and Lee, 2018), computed by XGBoost."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import xgboost as xgb

Matrix = npt.NDArray[np.float32]


class Contributions(NamedTuple):
    """Signed contributions to n scores in log-odds, float32 [n, F], and the bias, float32 [n]. They add up to the margin."""

    shap: Matrix
    bias: npt.NDArray[np.float32]


def contributions(booster: xgb.Booster, X: Matrix) -> Contributions:
    """Return the contributions to the scores of X float32 [n, F]."""
    shap = booster.predict(xgb.DMatrix(X, feature_names=booster.feature_names), pred_contribs=True)
    return Contributions(shap[:, :-1], shap[:, -1])
