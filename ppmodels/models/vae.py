"""Models with an explicit decoder: the VAE, plain and conditional, and two with adversarial inference of the latents."""

from collections.abc import Sequence
from math import prod

import pyro
import torch
from pyro.distributions import Normal
from torch import Tensor, nn

from ppmodels.nn import MLPDecoder, MLPEncoder, NoiseEncoder, make_head
from ppmodels.nn.conditioning import check_examples, one_hot, seen


class VAE(nn.Module):
    """z ~ Normal(0, I), x ~ decoder(z), and an encoder for q(z | x) (Kingma & Welling, 2014, arXiv 1312.6114).

    x is `(batch, *shape)`, float, whole levels 0..levels-1, or real numbers where `levels` is None; z is
    `(batch, latent)`. With `classes`, p(x | y) for labels y, int64 `(batch,)`: one-hot, they are joined to z
    for the decoder and given to the encoder as its context. `encoder(x)`, or `encoder(x, context)`, returns a
    distribution over z; `decoder(z)`, of `latent + classes` inputs, any distribution over x. Both default to
    multilayer perceptrons with the usual likelihood for so many levels.

    `observed`, bool of the shape of x, says which values are known: log p(x | z) is then the sum over these, and log p(x)
    that of their marginal. The encoder sees 0 in place of the others, and, where `masks`, also which they are, as a context
    of as many 0 and 1 after the labels (after Mattei & Frellsen, 2019, arXiv 1812.02633). A likelihood under which the
    values of x depend on each other refuses it.
    """

    def __init__(
        self,
        shape: Sequence[int] = (1, 28, 28),
        levels: int | None = 2,
        latent: int = 50,
        encoder: nn.Module | None = None,
        decoder: nn.Module | None = None,
        classes: int = 0,
        masks: bool = False,
    ) -> None:
        super().__init__()
        self.shape, self.levels, self.latent, self.classes = tuple(shape), levels, latent, classes
        self.masks = masks
        self.encoder = encoder or MLPEncoder(shape, levels, latent, context=classes + masks * prod(shape))
        self.decoder = decoder or MLPDecoder(latent + classes, shape, make_head(levels))

    def model(self, x: Tensor, y: Tensor | None = None, observed: Tensor | None = None) -> Tensor:
        """Draws z, observes x, and returns it (or a draw of it, where the observation is lifted)."""
        label = self._label(x, y)
        zeros = x.new_zeros(len(x), self.latent)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", Normal(zeros, zeros + 1).to_event(1))
            joined = z if label is None else torch.cat((z, label), 1)
            drawn: Tensor = pyro.sample("x", seen(self.decoder(joined), observed), obs=x)
        return drawn

    def guide(self, x: Tensor, y: Tensor | None = None, observed: Tensor | None = None) -> Tensor:
        """Draws z from q(z | x)."""
        context = self._context(x, self._label(x, y), observed)
        if observed is not None:
            x = torch.where(observed, x, 0)
        with pyro.plate("data", len(x)):
            posterior = self.encoder(x) if context is None else self.encoder(x, context)
            z: Tensor = pyro.sample("z", posterior)
        return z

    def _context(self, x: Tensor, label: Tensor | None, observed: Tensor | None) -> Tensor | None:
        """What the encoder is given beside x: labels, and which values are observed."""
        if not self.masks:
            return label
        mask = torch.ones_like(x) if observed is None else observed.to(x.dtype)
        return mask.flatten(1) if label is None else torch.cat((label, mask.flatten(1)), 1)

    def _label(self, x: Tensor, y: Tensor | None) -> Tensor | None:
        check_examples(x, self.shape, type(self).__name__)
        return one_hot(x, y, self.classes, type(self).__name__)


class AVB(VAE):
    """A VAE whose q(z | x) is a network of x and noise (Mescheder et al., 2017, arXiv 1701.04722).

    `Adversarial` fits it, with a critic of x and z, `plug_in_kl`, and best with a `contrast`. The encoder's default is a
    `NoiseEncoder`; any other that returns an implicit distribution will do.
    """

    def __init__(
        self,
        shape: Sequence[int] = (1, 28, 28),
        levels: int | None = 2,
        latent: int = 32,
        encoder: nn.Module | None = None,
        decoder: nn.Module | None = None,
    ) -> None:
        super().__init__(shape, levels, latent, encoder or NoiseEncoder(shape, levels, latent), decoder)


class AdversarialAutoencoder(VAE):
    """A VAE whose aggregate posterior is fitted to the prior by a critic (Makhzani et al., 2015, arXiv 1511.05644).

    `Adversarial(…, compare=("z",))` fits it, with a critic of z alone. The aggregate posterior is the mean of q(z | x) over
    the data; a single q(z | x) is not compared with the prior. Its encoder can have a density or none.
    """
