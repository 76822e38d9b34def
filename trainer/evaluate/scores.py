"""Scores of predictions against targets, class by class and as means that count only what can be scored."""

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score

from trainer.evaluate.by_class import ByClass, by_class
from trainer.evaluate.categories import categories, category_accuracy, mean_recall
from trainer.evaluate.kinds import Floats, Kind, Mask, log_odds, probabilities
from trainer.evaluate.regression import mae, rmse

THRESHOLD = 0.5
"""Probability from which a multi-label class counts as predicted, where nothing else is said."""


def summary(kind: Kind, scores: Floats, targets: Floats) -> dict[str, float | None]:
    """Return the scores that validation tells and selection goes by.

    Parameters
    ----------
    kind
        Of the task.
    scores
        float (n, K), raw outputs of the head.
    targets
        float (n, K), NaN where unknown; one-hot for a multi-class task.

    Returns
    -------
    dict of str to float or None
        multilabel: auc, ap, accuracy, balanced_accuracy, subset_accuracy. multiclass: the same without the last.
        regression: mae, rmse. All are means over classes; None where nothing can be scored.
    """
    scores, targets = np.asarray(scores, np.float64), np.asarray(targets, np.float64)
    if kind == "regression":
        return {"mae": mae(scores, targets).mean, "rmse": rmse(scores, targets).mean}
    ranked = log_odds(kind, scores)
    found = {"auc": auc(ranked, targets).mean, "ap": average_precision(ranked, targets).mean}
    if kind == "multiclass":
        predicted, actual = categories(scores, targets)
        return {
            **found,
            "accuracy": category_accuracy(predicted, actual),
            "balanced_accuracy": mean_recall(predicted, actual, scores.shape[1]),
        }
    positive = probabilities(kind, scores) >= THRESHOLD
    return {
        **found,
        "accuracy": accuracy(positive, targets).mean,
        "balanced_accuracy": balanced_accuracy(positive, targets).mean,
        "subset_accuracy": subset_accuracy(positive, targets),
    }


def auc(ranked: Floats, targets: Floats) -> ByClass:
    """Return the area under the ROC curve of each class: how often a positive ranks above a negative, ties half.

    Parameters
    ----------
    ranked
        float (n, K), higher for a more probable positive: `kinds.log_odds` of scores.
    targets
        float (n, K), NaN where unknown.

    Returns
    -------
    ByClass
        From 0 to 1; None of a class without a positive or a negative.
    """
    return by_class(ranked, targets, roc_auc_score, needs=(1, 0))


def average_precision(ranked: Floats, targets: Floats) -> ByClass:
    """Return the average precision of each class: precision at each recall step, not interpolated.

    Parameters
    ----------
    ranked
        float (n, K), higher for a more probable positive: `kinds.log_odds` of scores.
    targets
        float (n, K), NaN where unknown.

    Returns
    -------
    ByClass
        From 0 to 1; None of a class without a positive, or without a negative: it would be 1, whatever is said.
    """
    return by_class(ranked, targets, average_precision_score, needs=(1, 0))


def accuracy(positive: Mask, targets: Floats) -> ByClass:
    """Return the share of known targets that are predicted right, class by class; its mean is the mean accuracy.

    Parameters
    ----------
    positive
        bool (n, K), what is predicted.
    targets
        float (n, K), NaN where unknown.

    Returns
    -------
    ByClass
        From 0 to 1; None of a class without a known target.
    """
    return by_class(positive, targets, lambda actual, said: (said == actual).mean())


def balanced_accuracy(positive: Mask, targets: Floats) -> ByClass:
    """Return the mean of sensitivity and specificity of each class that has both positives and negatives.

    Parameters
    ----------
    positive
        bool (n, K), what is predicted.
    targets
        float (n, K), NaN where unknown.

    Returns
    -------
    ByClass
        From 0 to 1; None of a class without a positive or a negative.
    """
    return by_class(positive, targets, _mean_of_recalls, needs=(1, 0))


def subset_accuracy(positive: Mask, targets: Floats) -> float | None:
    """Return the share of samples with all labels right, of those whose labels are all known.

    Classes without any known target are left aside.

    Parameters
    ----------
    positive
        bool (n, K), what is predicted.
    targets
        float (n, K), NaN where unknown.

    Returns
    -------
    float or None
        From 0 to 1; None where no sample has all labels known.
    """
    known = ~np.isnan(targets)
    labelled = known.any(axis=0)
    whole = known[:, labelled].all(axis=1)
    if not labelled.any() or not whole.any():
        return None
    return float((positive == targets)[whole][:, labelled].all(axis=1).mean())


def _mean_of_recalls(actual: Floats, said: Floats) -> float:
    return float(said[actual == 1].mean() + 1 - said[actual == 0].mean()) / 2
