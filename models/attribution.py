"""Feature contributions to a score: exact TreeSHAP (Lundberg, Erion and Lee, 2018), computed by XGBoost."""

import numpy as np
import numpy.typing as npt
import xgboost as xgb

Matrix = npt.NDArray[np.float32]


def contributions(booster: xgb.Booster, X: Matrix) -> tuple[Matrix, npt.NDArray[np.float32]]:
    """Return signed contributions in log-odds, float32 [n, F], and the bias, float32 [n]. They add up to the margin."""
    shap = booster.predict(xgb.DMatrix(X, feature_names=booster.feature_names), pred_contribs=True)
    return shap[:, :-1], shap[:, -1]
