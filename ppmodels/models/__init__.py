"""Models: each an `nn.Module` with a Pyro `model`, and a `guide` where it has latents."""

from ppmodels.models.vae import VAE

__all__ = ["VAE"]
