"""The recipes of programs without a density: GANs of several games on every set, and latents inferred by a game."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from torch import nn

from inference import (
    Adversarial,
    Compiled,
    Divergence,
    Traced,
    both,
    gradient_penalty,
    jensen_shannon,
    non_saturating,
    r1,
    r2,
    relativistic,
    wasserstein,
)
from inference.objectives.adversarial.penalties import Penalty
from inference.training.step import Factory, adam
from ppmodels.app.recipe import Recipe, bounds, cosine
from ppmodels.data import Dataset
from ppmodels.models import ALI, AVB, GAN, AdversarialAutoencoder
from ppmodels.nn import (
    CodeCritic,
    ConvFeatures,
    ConvGenerator,
    Critic,
    JointCritic,
    MLPEncoder,
    MLPFeatures,
    MLPGenerator,
    ProjectionCritic,
)


def gan(data: Dataset, latent: int = 32, hidden: Sequence[int] = (256, 256), conditional: bool = False) -> nn.Module:
    """A GAN whose generator is a multilayer perceptron; of p(x | y), y the class, where `conditional`."""
    classes = data.classes if conditional else 0
    generator = MLPGenerator(latent + classes, data.shape, data.levels, hidden, leaky)
    return GAN(data.shape, data.levels, latent, generator, classes)


def dcgan(
    data: Dataset,
    latent: int = 64,
    features: Sequence[int] = (128, 64),
    normalised: bool = True,
    conditional: bool = False,
) -> nn.Module:
    """A GAN whose generator is made of transposed convolutions (Radford et al., 2016, arXiv 1511.06434)."""
    classes = data.classes if conditional else 0
    normalise: Callable[[int], nn.Module] = nn.BatchNorm2d if normalised else nn.Identity
    generator = ConvGenerator(latent + classes, data.shape, data.levels, features, normalise)
    return GAN(data.shape, data.levels, latent, generator, classes)


def ali(data: Dataset, latent: int = 16) -> nn.Module:
    """A GAN of a multilayer perceptron, with an encoder."""
    generator = MLPGenerator(latent, data.shape, data.levels, activation=leaky)
    return ALI(data.shape, data.levels, latent, generator)


def avb(data: Dataset, latent: int = 10) -> nn.Module:
    """A VAE whose q(z | x) has no density."""
    return AVB(data.shape, data.levels, latent)


def aae(data: Dataset, latent: int = 10) -> nn.Module:
    """An adversarial autoencoder with a normal encoder."""
    return AdversarialAutoencoder(data.shape, data.levels, latent)


def mlp_critic(program: Any) -> nn.Module:
    """T(x), or T(x, y) of a conditional program, by a multilayer perceptron."""
    return _of_x(program, MLPFeatures(program.shape, program.levels))


def small_critic(program: Any) -> nn.Module:
    """T(x) for tables of few columns."""
    return Critic(MLPFeatures(program.shape, program.levels, (64, 64, 64)))


def conv_critic(program: Any) -> nn.Module:
    """T(x), or T(x, y) of a conditional program, by convolutions."""
    return _of_x(program, ConvFeatures(program.shape, program.levels, (32, 64)))


def joint_critic(program: Any) -> nn.Module:
    """T(x, z)."""
    return JointCritic(MLPFeatures(program.shape, program.levels), program.latent)


def code_critic(program: Any) -> nn.Module:
    """T(z)."""
    return CodeCritic(program.latent)


def normal_contrast(program: Any) -> nn.Module:
    """r(z | x), a normal."""
    return MLPEncoder(program.shape, program.levels, program.latent)


def _of_x(program: Any, features: MLPFeatures | ConvFeatures) -> nn.Module:
    return ProjectionCritic(features, program.classes) if program.classes else Critic(features)


def game(
    program: Any,
    critic: Callable[[Any], nn.Module],
    divergence: Divergence | None = None,
    penalty: Callable[[Any], Penalty] | None = None,
    anneal: Callable[[int], float] | None = None,
    turns: int = 1,
    compare: Sequence[str] | None = None,
    contrast: Callable[[Any], nn.Module] | None = None,
) -> Adversarial:
    """`Adversarial` with a critic, a penalty and a contrast that are made for the program."""
    return Adversarial(
        program,
        critic(program),
        divergence,
        compare=compare,
        contrast=None if contrast is None else contrast(program),
        penalty=None if penalty is None else penalty(program),
        anneal=anneal,
        turns=turns,
    )


def leaky() -> nn.Module:
    """The activation of generators here, whose second derivatives are free."""
    return nn.LeakyReLU(0.2)


def falling(step: int, to: float, steps: int) -> float:
    """From 1 down to `to` by equal factors in so many steps, and no further."""
    return float(to ** min(1.0, step / steps))


def quick(lr: float) -> Factory:
    """Adam that forgets fast, as both sides of a game move."""
    return adam(lr, betas=(0.0, 0.99))


def dcgan_adam(lr: float) -> Factory:
    """The Adam of Radford et al. (2016, arXiv 1511.06434)."""
    return adam(lr, betas=(0.5, 0.999))


def lipschitz(program: Any) -> Penalty:
    """WGAN-GP's penalty (Gulrajani et al., 2017, arXiv 1704.00028)."""
    unit = _unit(program)
    return gradient_penalty(10.0 * unit**2, 1 / unit)


def flat_at_data(program: Any) -> Penalty:
    """R1 (Mescheder et al., 2018, arXiv 1801.04406)."""
    return r1(_unit(program) ** 2)


def flat(program: Any, weight: float = 1.0) -> Penalty:
    """R1 and R2, as R3GAN has them (Huang et al., 2024, arXiv 2501.05441)."""
    weight = weight * _unit(program) ** 2
    return both(r1(weight), r2(weight))


def _unit(program: Any) -> float:
    """What a critic sees as 1, in the units of x: penalties are on gradients by x itself."""
    return 1.0 if program.levels is None else (program.levels - 1) / 2


_GAN = Recipe(
    program=gan,
    optimizer=quick,
    steps=10_000,
    batch_size=64,
    average=0.999,
    traced=Traced,
    validate_every=None,
    estimators={},
    progression=6,
)
_TOY = replace(
    _GAN,
    program=partial(gan, latent=2, hidden=(128, 128, 128)),
    steps=16_000,
    batch_size=256,
    learning_rate=3e-3,
    schedule=cosine,
    traced=Compiled,
)
_IMAGES = replace(
    _GAN,
    program=partial(dcgan, features=(64, 32)),
    optimizer=dcgan_adam,
    learning_rate=1e-3,
    schedule=cosine,
    steps=8000,
)

_SETS: dict[str, tuple[Recipe, Callable[[Any], nn.Module]]] = {
    "digits": (replace(_GAN, learning_rate=5e-4, data="digits"), mlp_critic),
    "stacked-digits": (
        replace(_GAN, learning_rate=5e-4, data="stacked-digits", batch_size=128, steps=5000),
        mlp_critic,
    ),
    "mnist": (replace(_IMAGES, data="mnist"), conv_critic),
    "fashion": (replace(_IMAGES, data="fashion-mnist"), conv_critic),
    "ring-8": (replace(_TOY, data="ring-8"), small_critic),
    "grid-25": (replace(_TOY, data="grid-25"), small_critic),
}
_GAMES: dict[str, tuple[str, Callable[..., Adversarial]]] = {
    "minimax": ("the minimax game of Goodfellow et al. (2014)", partial(game, divergence=jensen_shannon)),
    "gan": ("a GAN, non-saturating", partial(game, divergence=non_saturating)),
    "wgan-gp": ("WGAN with gradient penalty", partial(game, divergence=wasserstein, penalty=lipschitz, turns=5)),
    "r1gan": ("a GAN with R1", partial(game, divergence=non_saturating, penalty=flat_at_data)),
    "r3gan": ("R3GAN's game", partial(game, divergence=relativistic, penalty=flat)),
}
_ANNEALED = {"penalty": partial(flat, weight=4.0), "anneal": partial(falling, to=1e-7, steps=_TOY.steps)}
"""Of R3GAN on the toys: a penalty that is large while modes are found, and would keep them wide if it stayed so."""


def _gans() -> dict[str, Recipe]:
    """Every game on every set."""
    found = {}
    for where, (recipe, critic) in _SETS.items():
        small = recipe.program is _TOY.program
        for name, (what, objective) in _GAMES.items():
            if name == "minimax" and not small:
                continue  # it is there to be seen failing
            fitted = partial(objective, critic=critic, **(_ANNEALED if small and name == "r3gan" else {}))
            steps = recipe.steps // 2 if name == "wgan-gp" else recipe.steps  # each has five turns of the critic
            found[f"{name}-{where}"] = replace(
                recipe, summary=f"{what}, on {recipe.data}", objective=fitted, steps=steps
            )
    return found


_CODES = replace(_GAN, steps=6000, learning_rate=1e-3, schedule=cosine, data="digits")

GAMES: dict[str, Recipe] = {
    **_gans(),
    "cgan-digits": replace(
        _GAN,
        program=partial(gan, conditional=True),
        summary="a GAN of the digits given their class, with a projection critic",
        objective=partial(game, critic=mlp_critic, divergence=non_saturating, penalty=flat_at_data),
        learning_rate=5e-4,
        labelled=True,
    ),
    "cgan-mnist": replace(
        _IMAGES,
        program=partial(dcgan, features=(64, 32), conditional=True),
        summary="DCGAN of MNIST given the class, with a projection critic",
        data="mnist",
        objective=partial(game, critic=conv_critic, divergence=non_saturating, penalty=flat_at_data),
        labelled=True,
    ),
    "ali-digits": replace(
        _CODES,
        program=ali,
        summary="ALI of the digits: a GAN with an encoder",
        objective=partial(game, critic=joint_critic, penalty=flat),
        learning_rate=5e-4,
    ),
    "avb-digits": replace(
        _CODES,
        program=avb,
        summary="adversarial variational Bayes of the digits, with adaptive contrast",
        objective=partial(game, critic=joint_critic, contrast=normal_contrast),
        progression=None,
    ),
    "aae-digits": replace(
        _CODES,
        program=aae,
        summary="an adversarial autoencoder of the digits",
        objective=partial(game, critic=code_critic, compare=("z",)),
        estimators=bounds(),
        progression=None,
    ),
}
"""By name."""
