"""Recipe files of a user's own, and what a file must look like to be called a picture."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

OWN = """
import pyro
from torch import nn

from ppmodels import MLPDecoder, MLPEncoder, make_head
from ppmodels.app import Recipe


class Own(nn.Module):
    def __init__(self, data, latent=3, hidden=(16,)):
        super().__init__()
        self.latent = latent
        self.encoder = MLPEncoder(data.shape, data.levels, latent, hidden)
        self.decoder = MLPDecoder(latent, data.shape, make_head(data.levels), hidden)

    def model(self, x):
        zeros = x.new_zeros(len(x), self.latent)
        with pyro.plate("data", len(x)):
            z = pyro.sample("code", pyro.distributions.Normal(zeros, zeros + 1).to_event(1))
            return pyro.sample("image", self.decoder(z), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("code", self.encoder(x))


recipe = Recipe(program=Own, data="DATA", steps=4, batch_size=16, average=0.9, validate_every=2)
"""

AUTOGUIDE = '''
from functools import partial

import pyro
import pyro.distributions as dist
from pyro.infer.autoguide import AutoNormal

from inference import Pair
from ppmodels.app import Recipe


def regression(x):
    """Columns are normal around one global mean: its latent is shared by all examples."""
    mean = pyro.sample("mean", dist.Normal(x.new_zeros(x.shape[1]), 10.0).to_event(1))
    with pyro.plate("data", len(x)):
        return pyro.sample("x", dist.Normal(mean, 1.0).to_event(1), obs=x)


recipe = Recipe(program=lambda data: Pair(regression, AutoNormal), data="DATA", steps=4, batch_size=40, validate_every=2)
'''

COLUMNS = """
import pyro
import pyro.distributions as dist
import torch
from torch import nn

from inference import exact
from ppmodels.app import Recipe


class Columns(nn.Module):
    def __init__(self, data):
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(data.shape))

    def model(self, x):
        with pyro.plate("data", len(x)):
            return pyro.sample("x", dist.Normal(self.mean, 1.0).to_event(1), obs=x)

    def guide(self, x):
        pass


recipe = Recipe(
    program=Columns, data="DATA", steps=3, batch_size=16, validate_every=2, estimators={"exact": exact()}
)
"""
"""A small program of a table, in a file of a user's own."""


def write_recipe(folder: Path, data: Path | str, source: str = OWN) -> Path:
    path = folder / "my_model.py"
    path.write_text(source.replace("DATA", str(data)))
    return path


def write_table(folder: Path, rows: int = 50) -> Path:
    path = folder / "table.csv"
    values = np.random.default_rng(0).normal(size=(rows, 3))
    np.savetxt(path, values, delimiter=",", header="a,b,c", comments="")
    return path


def picture_size(path: Path) -> tuple[int, int]:
    """Width and height of a PNG that decodes and is not blank."""
    image = Image.open(io.BytesIO(path.read_bytes()))
    assert image.format == "PNG"
    assert np.asarray(image.convert("L")).std() > 5
    return image.size
