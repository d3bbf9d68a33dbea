"""What the latents know of the classes: a linear probe of their posterior means, beside the same probe of x."""

import math
import warnings

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inference.programs.noise import mix, own_noise
from inference.programs.sites import is_implicit
from ppmodels.app.drawn import latents_given, observed_site
from ppmodels.app.experiment import Experiment, chosen_rows
from ppmodels.app.study.measurement import NO_LATENTS, Codes, Number
from ppmodels.app.study.settled import held_out_rows

LEARNT, DRAWS, AT_ONCE = 2000, 16, 100
"""Training rows of a probe; draws of the guide in a mean; rows at once."""
INVERSE_PENALTIES = (0.001, 0.01, 0.1, 1.0, 10.0)


def codes(experiment: Experiment, seed: int = 0) -> Codes:
    """The accuracy of both probes on the test split, learnt from up to 2,000 training rows.

    Raises ValueError, saying why, where there are no classes, or no latents that the guide reads off x alone.
    """
    refuse_without_codes(experiment)
    data = experiment.data
    if data.classes < 2 or data.train.labels is None or data.test.labels is None:
        raise ValueError("the data have no classes to read")
    if experiment.recipe.labelled:
        raise ValueError("the guide is given the class, so that codes would know it from there")
    train, test = chosen_rows(len(data.train), LEARNT), held_out_rows(data)
    x, y = data.train.values[train], data.train.labels[train]
    new, truth = data.test.values[test], data.test.labels[test]
    with own_noise(mix(seed, 8)):
        known, unknown = posterior_means(experiment, x), posterior_means(experiment, new)
    return Codes(
        accuracy=_probed(known, y, unknown, truth),
        of_pixels=_probed(x.double().flatten(1).cpu(), y, new.double().flatten(1).cpu(), truth),
        numbers=known.shape[1],
        chance=float(truth.bincount().max()) / len(truth),
    )


def refuse_without_codes(experiment: Experiment) -> None:
    """Raises ValueError where the guide has no latents of its own for any example, such as a test one."""
    if not experiment.likelihood.per_example:
        raise ValueError("all examples share latents, so that none has a code of its own")
    if experiment.has_values_of_rows:
        raise ValueError("the guide has values of the training rows alone, and no codes of others")
    batch = experiment.examples(2)
    if not latents_given(experiment, batch):
        generator = is_implicit(observed_site(experiment, batch)[1])
        raise ValueError("the generator has no encoder, which would find z given x" if generator else NO_LATENTS)


def posterior_means(experiment: Experiment, x: Tensor) -> Tensor:
    """E_q z of each row, by 16 draws, all latents side by side: `(n, numbers)` float64."""
    found = []
    for part in x.split(AT_ONCE):
        drawn = latents_given(experiment, (part.float(),), DRAWS)
        found.append(torch.cat([each.double().mean(0).reshape(len(part), -1) for each in drawn.values()], 1))
    return torch.cat(found).cpu()


def _probed(known: Tensor, labels: Tensor, unknown: Tensor, truth: Tensor) -> Number:
    """The accuracy on unseen rows of a multinomial logistic regression, whose penalty is cross-validated on known ones."""
    from sklearn.exceptions import ConvergenceWarning  # type: ignore[import-untyped]  # no scikit-learn types
    from sklearn.linear_model import LogisticRegression  # type: ignore[import-untyped]
    from sklearn.model_selection import GridSearchCV, StratifiedKFold  # type: ignore[import-untyped]
    from sklearn.pipeline import make_pipeline  # type: ignore[import-untyped]
    from sklearn.preprocessing import StandardScaler  # type: ignore[import-untyped]

    y = labels.cpu().numpy()
    if int(np.bincount(y)[np.unique(y)].min()) < 2 or len(np.unique(y)) < 2:
        raise ValueError("a class has a single training example, by which no penalty can be cross-validated")
    folds = StratifiedKFold(min(3, int(np.bincount(y)[np.unique(y)].min())), shuffle=True, random_state=0)
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300))
    search = GridSearchCV(probe, {"logisticregression__C": INVERSE_PENALTIES}, cv=folds)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a probe that is nearly at its optimum is a probe
        search.fit(known.numpy(), y)
    right: NDArray[np.bool_] = search.predict(unknown.numpy()) == truth.cpu().numpy()
    return wilson(int(right.sum()), len(right))


def wilson(right: int, of: int) -> Number:
    """A share with the interval of Wilson (1927), which stays within 0 and 1."""
    share, z2 = right / of, 1.96**2
    middle = (share + z2 / (2 * of)) / (1 + z2 / of)
    half = 1.96 * math.sqrt(share * (1 - share) / of + z2 / (4 * of * of)) / (1 + z2 / of)
    return Number(share, max(0.0, middle - half), min(1.0, middle + half))
