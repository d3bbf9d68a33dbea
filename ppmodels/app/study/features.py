"""The features of KID: those of a small network that is trained once a study, on the data at hand; nothing is downloaded."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from inference.programs.noise import mix, own_noise
from inference.training.files import contents_of, write_together
from ppmodels.app.run import as_json
from ppmodels.app.study.settled import is_images, kept_apart, others
from ppmodels.data import Dataset
from ppmodels.data.dataset import fingerprint_of

WEIGHTS, ABOUT = "features.safetensors", "features.json"
SIZE, STEPS, BATCH, SIDE = 64, 600, 64, 32
"""Features; steps of training and rows in each; the longest side that the network sees."""


class Features(NamedTuple):
    """Rows of numbers by which samples are compared with data, and what they are, in words."""

    of: Callable[[Tensor], Tensor]
    """Values as the data hold them to `(n, features)`, standardised by the rows that were learnt from."""
    words: str


class FeatureNetwork(nn.Module):
    """Two convolutions and a layer of features, which a last layer turns into classes, or back into the image."""

    mean: Tensor
    scale: Tensor

    def __init__(self, shape: tuple[int, ...], top: int, outputs: int) -> None:
        super().__init__()
        channels, height, width = shape
        self.top = top
        self.seen = min(height, SIDE), min(width, SIDE)
        self.encoder = nn.Sequential(
            nn.AdaptiveAvgPool2d(self.seen),
            nn.Conv2d(channels, 16, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2, ceil_mode=True),
            nn.Conv2d(16, 32, 3, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(4),
            nn.Flatten(),
            nn.Linear(32 * 16, SIZE),
        )
        self.last = nn.Sequential(nn.ReLU(), nn.Linear(SIZE, outputs))
        self.register_buffer("mean", torch.zeros(SIZE))
        self.register_buffer("scale", torch.ones(SIZE))

    def forward(self, x: Tensor) -> Tensor:
        """What the last layer makes of the features of levels `(n, channel, height, width)`."""
        found: Tensor = self.last(self.encoder(self.units(x)))
        return found

    def units(self, x: Tensor) -> Tensor:
        """Levels, in [-1, 1]."""
        return x.float() / self.top * 2 - 1

    @torch.no_grad()
    def features(self, x: Tensor) -> Tensor:
        """`(n, SIZE)`, in pieces of 500."""
        return torch.cat([(self.encoder(self.units(part)) - self.mean) / self.scale for part in x.split(500)])


def features_of(data: Dataset, folder: Path) -> Features:
    """The features for these data: of a table its standardised columns, else of the network that `folder` keeps.

    Where it keeps none, or one of other data, the network is trained and written there. It sees the training rows alone,
    without those that stand in the place of samples.
    """
    if not is_images(data):
        return Features(columns_of(data), "the columns, standardised by the training split; no network")
    learnt = others(len(data.train), kept_apart(data))
    made_of: dict[str, object] = {
        "trained_on": fingerprint_of(learnt, data.train.fingerprint),
        "classes": data.classes,
        "steps": STEPS,
    }
    network = _network(data)
    words = _kept(folder, made_of, network)
    if words is None:
        words = _trained(network, data, learnt)
        weights = safetensors.torch.save({name: each.contiguous() for name, each in network.state_dict().items()})
        write_together(folder, {WEIGHTS: weights, ABOUT: as_json({**made_of, "words": words})})
    return Features(network.eval().features, words)


def columns_of(data: Dataset) -> Callable[[Tensor], Tensor]:
    """What makes rows comparable: the standardised columns of a table, and the levels of images as they are."""
    if is_images(data):
        return lambda values: values.flatten(1)
    known = data.train.values.double().flatten(1)
    mean, scale = known.mean(0), known.std(0)
    scale = torch.where(scale > 0, scale, 1.0)
    return lambda values: (values.double().flatten(1) - mean) / scale


def _network(data: Dataset) -> FeatureNetwork:
    assert data.levels is not None
    with own_noise(mix(0, 3)):
        network = FeatureNetwork(data.shape, data.levels - 1, 1)
        outputs = data.classes if _labelled(data) else data.shape[0] * network.seen[0] * network.seen[1]
        return FeatureNetwork(data.shape, data.levels - 1, outputs)


def _labelled(data: Dataset) -> bool:
    return data.classes > 1


def _kept(folder: Path, made_of: dict[str, object], network: FeatureNetwork) -> str | None:
    """What a folder says of its network, whose weights are then this one's; None where it is not of these data."""
    try:
        about = json.loads(contents_of(folder / ABOUT))
        if not isinstance(about.get("words"), str) or {name: about.get(name) for name in made_of} != made_of:
            return None
        network.load_state_dict(safetensors.torch.load(contents_of(folder / WEIGHTS)))
    except (OSError, ValueError, RuntimeError, AttributeError, SafetensorError, RecursionError):
        return None
    return str(about["words"])


def _trained(network: FeatureNetwork, data: Dataset, learnt: Tensor) -> str:
    """Trains a network on rows of the training split; what it is, with what it makes of the test split."""
    x, test = data.train.values[learnt], data.test.values
    optimizer = torch.optim.Adam(network.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    loss = _by_class(data, learnt) if _labelled(data) else _by_image(network)
    generator = torch.Generator().manual_seed(mix(0, 4))
    for _ in range(STEPS):
        rows = torch.randint(len(x), (BATCH,), generator=generator)
        optimizer.zero_grad()
        loss(network(x[rows]), x[rows], rows).backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        found = network.features(x)
        network.mean.copy_(found.mean(0))
        network.scale.copy_(found.std(0).clamp_min(1e-6))
        made = torch.cat([network(part) for part in test.split(500)])
    known = f"trained on {len(learnt):,} of the training split"
    if _labelled(data):
        assert data.test.labels is not None
        right = float((made.argmax(1) == data.test.labels).double().mean())
        return f"{SIZE} features of a small classifier, {known}: right on {right:.1%} of the test split"
    wanted = _pooled(network, test)
    explained = 1 - float((made - wanted).square().sum() / (wanted - wanted.mean(0)).square().sum().clamp_min(1e-12))
    return f"{SIZE} features of a small autoencoder, {known}: it explains {explained:.1%} of the test split's variance"


Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


def _by_class(data: Dataset, learnt: Tensor) -> Loss:
    assert data.train.labels is not None
    labels = data.train.labels[learnt]
    return lambda made, x, rows: nn.functional.cross_entropy(made, labels[rows])


def _by_image(network: FeatureNetwork) -> Loss:
    return lambda made, x, rows: (made - _pooled(network, x)).square().mean()


def _pooled(network: FeatureNetwork, x: Tensor) -> Tensor:
    """Images as the network sees them."""
    seen: Tensor = network.encoder[0](network.units(x))
    return seen.flatten(1)
