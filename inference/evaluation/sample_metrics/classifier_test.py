"""The classifier two-sample test: can a small network tell samples from data?"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from inference.evaluation.sample_metrics.score import Score, bootstrap, rows
from inference.programs.noise import own_noise

FOLDS, HIDDEN, STEPS = 5, 64, 150


class ClassifierTest(NamedTuple):
    """How well samples and data are told apart by networks that have not seen them."""

    accuracy: Score
    """1/2 where no difference is found."""
    log_loss: Score
    """In nats, log 2 where no difference is found; log 2 minus it is a lower bound on the Jensen-Shannon divergence."""
    p_value: float
    """Of an accuracy as high without a difference."""
    detectable: float
    """The accuracy that would be found significant at 0.05 four times out of five: what a null result leaves open."""


def classifier_test(samples: Tensor, data: Tensor, seed: int = 0) -> ClassifierTest:
    """The test of Lopez-Paz & Oquab (2017, arXiv 1610.06545), cross-fitted in five folds, as many of each as of the fewer.

    Each fold is judged by a network of one hidden layer that was trained on the others, and stopped by a fifth of these.

    Raises:
        ValueError: the rows can not be compared, or there are fewer than 50 of each.
    """
    x, y = rows(samples, data)
    n = min(len(x), len(y))
    if n < 50:
        raise ValueError(
            f"samples: {len(x)} beside {len(y)} data are too few to train a classifier; give at least 50 of each"
        )
    generator = torch.Generator().manual_seed(seed)
    x, y = (each[torch.randperm(len(each), generator=generator)[:n]] for each in (x, y))
    features, label = torch.cat((x, y)), torch.cat((torch.ones(n), torch.zeros(n))).double()
    fold = torch.arange(n) % FOLDS
    fold = torch.cat((fold, fold))
    logits = torch.empty(2 * n, dtype=torch.float64)
    with own_noise(seed):
        for each in range(FOLDS):
            logits[fold == each] = _judged(features[fold != each], label[fold != each], features[fold == each])
    right = ((logits > 0) == (label > 0)).double()
    losses = nn.functional.binary_cross_entropy_with_logits(logits, label, reduction="none")
    accuracy = _mean(right, n, seed)
    spread = 0.5 / math.sqrt(2 * n)
    return ClassifierTest(
        accuracy=accuracy,
        log_loss=_mean(losses, n, seed),
        p_value=0.5 * math.erfc((accuracy.value - 0.5) / spread / math.sqrt(2)),
        detectable=min(1.0, 0.5 + (1.6449 + 0.8416) * spread),
    )


def _mean(each: Tensor, n: int, seed: int) -> Score:
    """The mean over both sets, each resampled by itself."""
    return bootstrap(lambda a, b: 0.5 * (a @ each[:n] / n + b @ each[n:] / n), (n, n), seed)


def _judged(features: Tensor, label: Tensor, unseen: Tensor) -> Tensor:
    """The logits of unseen rows, by a network trained on others and stopped where a fifth of these have the lowest loss."""
    order = torch.randperm(len(features))
    held, kept = order[: len(order) // 5], order[len(order) // 5 :]
    mean, scale = features[kept].mean(0), features[kept].std(0)
    units = torch.where(scale > 0, scale, 1.0)
    scaled, unseen = (features - mean) / units, (unseen - mean) / units
    last = nn.Linear(HIDDEN, 1)
    network = nn.Sequential(nn.Linear(features.shape[1], HIDDEN), nn.ReLU(), last).double()
    nn.init.zeros_(last.weight)  # it begins by saying that it does not know
    nn.init.zeros_(last.bias)
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=0.1)
    lowest, best = math.inf, torch.zeros(len(unseen), dtype=torch.float64)
    with torch.enable_grad():
        for _ in range(STEPS):
            with torch.no_grad():
                loss = _loss(network, scaled[held], label[held]).item()
                if loss < lowest:
                    lowest, best = loss, network(unseen).squeeze(1)
            optimizer.zero_grad()
            _loss(network, scaled[kept], label[kept]).backward()
            optimizer.step()
    return best


def _loss(network: nn.Module, features: Tensor, label: Tensor) -> Tensor:
    return nn.functional.binary_cross_entropy_with_logits(network(features).squeeze(1), label)
