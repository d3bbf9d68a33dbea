"""What a checkpoint costs: the seconds of one, and their share of a minute of training."""

import statistics
import tempfile
import time
from pathlib import Path

import torch
from torch import nn

from inference import SVI, Checkpoint, Step, Validation, adam
from inference.training.checkpointing import Checkpointing
from inference.training.fitted import Fitted
from inference.training.validation import Best
from ppmodels import VAE, MLPDecoder, MLPEncoder, make_head

SHAPE, BATCH, ROUNDS = (1, 28, 28), 128, 7
SIZES = {"VAE 784-200-200-50": (50, (200, 200)), "VAE 784-2000-2000-100": (100, (2000, 2000))}


def vae(latent: int, hidden: tuple[int, ...]) -> VAE:
    encoder = MLPEncoder(SHAPE, 2, latent, hidden, activation=nn.Softplus)
    return VAE(SHAPE, 2, latent, encoder=encoder, decoder=MLPDecoder(latent, SHAPE, make_head(2), hidden))


def report(device: str) -> None:
    """Prints the seconds of a checkpoint of a run with an average and a validation, whose weights it holds too."""
    for name, size in SIZES.items():
        model = vae(*size).to(device)
        walls, processor, megabytes = _seconds(model, device)
        weights = sum(parameter.numel() for parameter in model.parameters())
        print(
            f"checkpoint of {name} ({weights:,} weights, {megabytes:.0f} MB): {statistics.median(walls):.3f} s "
            f"(fastest {min(walls):.3f}, on the processor {processor:.3f}), {statistics.median(walls) / 60:.2%} of training "
            "where one is saved every minute"
        )


def _seconds(model: VAE, device: str) -> tuple[list[float], float, float]:
    """The seconds of some checkpoints, those of the process in the median, and the megabytes of one."""
    x = (torch.rand(BATCH, *SHAPE, device=device) < 0.3).float()
    step = Step(SVI(model), adam(), average=0.999)
    keeper = Best(step, Validation(x))
    walls, processor = [], []
    with tempfile.TemporaryDirectory() as folder:
        kept = Checkpointing(Checkpoint(folder), step, keeper, Fitted(0, "", 0.0, []), x)
        for _ in range(ROUNDS):
            step((x,))
            keeper.score()
            began, worked = time.perf_counter(), time.process_time()
            kept.after_step("finished")
            walls.append(time.perf_counter() - began)
            processor.append(time.process_time() - worked)
        megabytes = max(path.stat().st_size for path in Path(folder).rglob("*.safetensors")) / 1e6
    return walls, statistics.median(processor), megabytes
