"""The variational autoencoder, plain and conditional (Kingma & Welling, 2014, arXiv 1312.6114)."""

from collections.abc import Sequence

import pyro
import torch
from pyro.distributions import Normal
from pyro.distributions.util import is_validation_enabled
from torch import Tensor, nn

from ppmodels.nn import MLPDecoder, MLPEncoder, make_head


class VAE(nn.Module):
    """z ~ Normal(0, I), x ~ decoder(z), and an encoder for q(z | x) (Kingma & Welling, 2014, arXiv 1312.6114).

    x is `(batch, *shape)`, float, whole levels 0..levels-1, or real numbers where `levels` is None; z is
    `(batch, latent)`. With `classes`, p(x | y) for labels y, int64 `(batch,)`: one-hot, they are joined to z
    for the decoder and given to the encoder as its context. `encoder(x)`, or `encoder(x, context)`, returns a
    distribution over z; `decoder(z)`, of `latent + classes` inputs, any distribution over x. Both default to
    multilayer perceptrons with the usual likelihood for so many levels.
    """

    def __init__(
        self,
        shape: Sequence[int] = (1, 28, 28),
        levels: int | None = 2,
        latent: int = 50,
        encoder: nn.Module | None = None,
        decoder: nn.Module | None = None,
        classes: int = 0,
    ) -> None:
        super().__init__()
        self.shape, self.levels, self.latent, self.classes = tuple(shape), levels, latent, classes
        self.encoder = encoder or MLPEncoder(shape, levels, latent, context=classes)
        self.decoder = decoder or MLPDecoder(latent + classes, shape, make_head(levels))

    def model(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Draws z, observes x, and returns it (or a draw of it, where the observation is lifted)."""
        label = self._one_hot(x, y)
        zeros = x.new_zeros(len(x), self.latent)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", Normal(zeros, zeros + 1).to_event(1))
            joined = z if label is None else torch.cat((z, label), 1)
            drawn: Tensor = pyro.sample("x", self.decoder(joined), obs=x)
        return drawn

    def guide(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Draws z from q(z | x)."""
        label = self._one_hot(x, y)
        with pyro.plate("data", len(x)):
            posterior = self.encoder(x) if label is None else self.encoder(x, label)
            z: Tensor = pyro.sample("z", posterior)
        return z

    def _one_hot(self, x: Tensor, y: Tensor | None) -> Tensor | None:
        _check_examples(x, self.shape)
        if not self.classes:
            if y is not None:
                raise ValueError("y: expected none, as this VAE has no classes, got labels; build it with classes=…")
            return None
        if y is None:
            raise ValueError(
                f"y: expected labels 0..{self.classes - 1}, as this VAE has classes={self.classes}, got none; "
                "call it with (x, y)"
            )
        _check_labels(y, len(x), self.classes)
        return (y.unsqueeze(1) == torch.arange(self.classes, device=y.device)).to(x.dtype)


def _check_examples(x: Tensor, shape: tuple[int, ...]) -> None:
    if tuple(x.shape[1:]) != shape:
        expected = ", ".join(map(str, shape))
        raise ValueError(
            f"x: expected shape (batch, {expected}), got {tuple(x.shape)}; reshape it, or build the VAE with its shape"
        )
    if not x.is_floating_point():
        raise ValueError(f"x: expected levels as floats, got {x.dtype}; call x.float()")


def _check_labels(y: Tensor, batch: int, classes: int) -> None:
    if tuple(y.shape) != (batch,) or y.dtype != torch.int64:
        raise ValueError(
            f"y: expected int64 labels of shape ({batch},), got {y.dtype} of shape {tuple(y.shape)}; convert them"
        )
    # Reading values makes a device wait, so it is part of Pyro's validation and switched off with it.
    if is_validation_enabled() and bool(((y < 0) | (y >= classes)).any()):
        raise ValueError(
            f"y: expected labels 0..{classes - 1}, got {int(y.min())}..{int(y.max())}; "
            "renumber them, or build the VAE with more classes"
        )
