"""A classifier of small images, trained on real ones, by which generated ones are counted."""

import torch
from torch import Tensor, nn

from ppmodels.data import Dataset, InOrder, Shuffled


class Classifier(nn.Module):
    """Two convolutions and two linear layers: logits of the classes, from levels `(batch, channel, height, width)`."""

    def __init__(self, data: Dataset) -> None:
        super().__init__()
        channels, height, width = data.shape
        assert data.levels is not None
        self.top = data.levels - 1
        self.network = nn.Sequential(
            *(nn.Conv2d(channels, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Dropout(0.3)),
            *(nn.Linear(64 * (height // 4) * (width // 4), 128), nn.ReLU(), nn.Linear(128, data.classes)),
        )

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.network(2 * x / self.top - 1)
        return logits


def trained(data: Dataset, steps: int = 2500, seed: int = 0) -> tuple[Classifier, float]:
    """A classifier of a set's classes, trained on its train split, and its accuracy on the test split."""
    torch.manual_seed(seed)
    classifier = Classifier(data)
    optimizer = torch.optim.Adam(classifier.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    batches = Shuffled(data, batch_size=64, seed=seed, labelled=True)
    for step in range(steps):
        x, y = batches(step)
        loss = nn.functional.cross_entropy(classifier(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    classifier.eval()
    with torch.no_grad():
        right = [classifier(x).argmax(1) == y for x, y in InOrder(data, "test", 500, labelled=True)]
    return classifier, float(torch.cat(right).float().mean())


@torch.no_grad()
def classified(classifier: Classifier, x: Tensor) -> tuple[Tensor, Tensor]:
    """The class of each image, `(n,)`, and the probability that it is given."""
    probability = torch.cat([classifier(some).softmax(1) for some in x.split(2000)])
    best = probability.max(1)
    return best.indices, best.values
