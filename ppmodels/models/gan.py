"""Generative adversarial networks: programs whose x has no density."""

from collections.abc import Sequence

import pyro
import torch
from pyro.distributions import Normal
from torch import Tensor, nn

from ppmodels.distributions import DiscretizedNormal
from ppmodels.nn import Generator, MLPEncoder, MLPGenerator
from ppmodels.nn.conditioning import check_examples, one_hot


class GAN(nn.Module):
    """z ~ Normal(0, I), x = generator(z) without a density, and an empty guide (Goodfellow et al., 2014, arXiv 1406.2661).

    x is `(batch, *shape)`: levels 0..levels-1 as floats, or real numbers where `levels` is None; draws lie between whole
    levels. `generator(z)`, of `latent + classes` inputs, returns a distribution over x; the default is a multilayer
    perceptron. With `classes`, labels y `(batch,)` are joined to z, one-hot. `Adversarial` fits it, with a critic of x, or
    of x and y.
    """

    def __init__(
        self,
        shape: Sequence[int] = (1, 28, 28),
        levels: int | None = 2,
        latent: int = 64,
        generator: nn.Module | None = None,
        classes: int = 0,
    ) -> None:
        super().__init__()
        self.shape, self.levels, self.latent, self.classes = tuple(shape), levels, latent, classes
        self.generator = generator or MLPGenerator(latent + classes, shape, levels)

    def model(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Draws z, observes x, and returns it (or a draw of it, where the observation is lifted)."""
        check_examples(x, self.shape, type(self).__name__)
        label = one_hot(x, y, self.classes, type(self).__name__)
        with pyro.plate("data", len(x)):
            z = _standard_normal(x, self.latent)
            joined = z if label is None else torch.cat((z, label), 1)
            drawn: Tensor = pyro.sample("x", self.generator(joined), obs=x)
        return drawn

    def guide(self, x: Tensor, y: Tensor | None = None) -> object:
        """Nothing: z is the model's own noise."""


class ALI(GAN):
    """A GAN with an encoder, both fitted by comparing (x, z) (Dumoulin et al., 2017, arXiv 1606.00704; BiGAN, 1605.09782).

    `Adversarial` fits it, with a critic of x and z. Matching joints says nothing of how well a single q(z | x) is found: the
    encoder inverts the generator only as well as the critic makes it.
    """

    def __init__(
        self,
        shape: Sequence[int] = (1, 28, 28),
        levels: int | None = 2,
        latent: int = 64,
        generator: nn.Module | None = None,
        encoder: nn.Module | None = None,
    ) -> None:
        super().__init__(shape, levels, latent, generator)
        self.encoder = encoder or MLPEncoder(shape, levels, latent)

    def guide(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Draws z from q(z | x)."""
        check_examples(x, self.shape, type(self).__name__)
        with pyro.plate("data", len(x)):
            z: Tensor = pyro.sample("z", self.encoder(x))
        return z


class NoisyGenerator(nn.Module):
    """A generator with a density: x is its output plus normal noise of `scale`, rounded to levels.

    Wu et al. (2017, arXiv 1611.04273). `scale` is in levels (in units of x for real numbers) and belongs to the model, so
    numbers of two scales are numbers of two models. `classes` is that of the `GAN` whose generator it is. Its guide is the
    prior: `terms` at given latents, sampling and the bounds of `importance` hold, and are as loose as the prior is far from
    the posterior.

    Raises:
        ValueError: the scale is not positive, or the generator does not say what it takes and gives.
    """

    scale: Tensor

    def __init__(self, generator: Generator, scale: float, classes: int = 0) -> None:
        super().__init__()
        if not scale > 0:
            raise ValueError(
                f"scale: expected a positive number of levels, got {scale}; a generator alone has no density"
            )
        missing = [name for name in ("shape", "levels", "inputs") if not hasattr(generator, name)]
        if missing:
            raise ValueError(
                f"generator: expected a ppmodels.Generator, got a {type(generator).__name__} without {missing}; wrap its "
                "network: Generator(network, inputs, shape, levels)"
            )
        self.generator, self.classes, self.latent = generator, classes, generator.inputs - classes
        self.register_buffer("scale", torch.tensor(float(scale)))

    def model(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Draws z, observes x, and returns it (or a draw of it, where the observation is lifted)."""
        check_examples(x, self.generator.shape, type(self).__name__)
        label = one_hot(x, y, self.classes, type(self).__name__)
        with pyro.plate("data", len(x)):
            z = _standard_normal(x, self.latent)
            loc = self.generator(z if label is None else torch.cat((z, label), 1)).rsample()
            levels, scale = self.generator.levels, self.scale.to(loc.dtype)
            around = Normal(loc, scale) if levels is None else DiscretizedNormal(loc, scale, levels)
            drawn: Tensor = pyro.sample("x", around.to_event(len(self.generator.shape)), obs=x)
        return drawn

    def guide(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Draws z from the prior."""
        with pyro.plate("data", len(x)):
            return _standard_normal(x, self.latent)


def _standard_normal(x: Tensor, size: int) -> Tensor:
    zeros = x.new_zeros(len(x), size)
    z: Tensor = pyro.sample("z", Normal(zeros, zeros + 1).to_event(1))
    return z
