"""Adversarial models: GANs, and adversarial inference of latents."""

from collections.abc import Callable, Mapping, Sequence
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
from inference.training.factories import Factory, adam
from ppmodels.app.presets import LARGE, PLANE, SMALL_COLOUR, TABLE, Preset
from ppmodels.app.recipe import Recipe, bounds, cosine
from ppmodels.app.settings import Count
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


def gan(
    data: Dataset, latent: Count = 32, hidden: Sequence[Count] = (256, 256), features: Sequence[Count] = ()
) -> nn.Module:
    """A GAN.

    Its generator is a multilayer perceptron with `hidden` units, or, where there are `features`, one of transposed
    convolutions with so many maps (Radford et al., 2016, arXiv 1511.06434).
    """
    return _gan(data, latent, hidden, features, 0)


def conditional_gan(
    data: Dataset, latent: Count = 32, hidden: Sequence[Count] = (256, 256), features: Sequence[Count] = ()
) -> nn.Module:
    """A GAN of p(x | y), y the class."""
    return _gan(data, latent, hidden, features, data.classes)


def ali(data: Dataset, latent: Count = 16, hidden: Sequence[Count] = (256, 256)) -> nn.Module:
    """A GAN with an encoder."""
    generator = MLPGenerator(latent, data.shape, data.levels, hidden, _leaky)
    return ALI(data.shape, data.levels, latent, generator)


def avb(data: Dataset, latent: Count = 10) -> nn.Module:
    """A VAE whose q(z | x) has no density."""
    return AVB(data.shape, data.levels, latent)


def aae(data: Dataset, latent: Count = 10) -> nn.Module:
    """An adversarial autoencoder with a normal encoder."""
    return AdversarialAutoencoder(data.shape, data.levels, latent)


def compare_x(
    program: Any,
    divergence: Divergence,
    turns: Count = 1,
    critic_hidden: Sequence[Count] = (256, 256),
    critic_features: Sequence[Count] = (),
) -> Adversarial:
    """A critic of x, or of x and y, without a penalty."""
    return Adversarial(program, _critic_of_x(program, critic_hidden, critic_features), divergence, turns=turns)


def compare_x_smoothly(
    program: Any,
    divergence: Divergence,
    penalty: Callable[[float, float], Penalty],
    penalty_weight: float = 1.0,
    anneal_to: float = 1.0,
    anneal_steps: Count = 16_000,
    turns: Count = 1,
    critic_hidden: Sequence[Count] = (256, 256),
    critic_features: Sequence[Count] = (),
) -> Adversarial:
    """A critic of x, or of x and y, with a penalty, which falls to the factor `anneal_to` in `anneal_steps` steps."""
    return Adversarial(
        program,
        _critic_of_x(program, critic_hidden, critic_features),
        divergence,
        penalty=penalty(_unit(program), penalty_weight),
        anneal=None if anneal_to == 1.0 else partial(_falling, to=anneal_to, steps=anneal_steps),
        turns=turns,
    )


def compare_x_and_z(program: Any, penalty_weight: float = 1.0, turns: Count = 1) -> Adversarial:
    """ALI's critic of x and z, with R1 and R2."""
    critic = JointCritic(MLPFeatures(program.shape, program.levels), program.latent)
    return Adversarial(program, critic, penalty=_r1_and_r2(_unit(program), penalty_weight), turns=turns)


def compare_posteriors(program: Any, turns: Count = 1) -> Adversarial:
    """A critic of x and z that compares q(z | x) with a normal r(z | x): adaptive contrast."""
    critic = JointCritic(MLPFeatures(program.shape, program.levels), program.latent)
    contrast = MLPEncoder(program.shape, program.levels, program.latent)
    return Adversarial(program, critic, contrast=contrast, turns=turns)


def compare_codes(program: Any, turns: Count = 1) -> Adversarial:
    """A critic of z alone."""
    return Adversarial(program, CodeCritic(program.latent), compare=("z",), turns=turns)


def _gan(data: Dataset, latent: int, hidden: Sequence[int], features: Sequence[int], classes: int) -> nn.Module:
    inputs = latent + classes
    generator = (
        ConvGenerator(inputs, data.shape, data.levels, features)
        if features
        else MLPGenerator(inputs, data.shape, data.levels, hidden, _leaky)
    )
    return GAN(data.shape, data.levels, latent, generator, classes)


def _critic_of_x(program: Any, hidden: Sequence[int], features: Sequence[int]) -> nn.Module:
    shape, levels = program.shape, program.levels
    found = ConvFeatures(shape, levels, features) if features else MLPFeatures(shape, levels, hidden)
    return ProjectionCritic(found, program.classes) if program.classes else Critic(found)


def _leaky() -> nn.Module:
    """The activation of these generators; its second derivative is 0, so that penalties are cheap."""
    return nn.LeakyReLU(0.2)


def _falling(step: int, to: float, steps: int) -> float:
    """From 1 down to `to` by equal factors in so many steps, and no further."""
    return float(to ** min(1.0, step / steps))


def _quick(lr: float) -> Factory:
    """Adam without momentum and with a short memory: in adversarial training the loss of each player keeps changing."""
    return adam(lr, betas=(0.0, 0.99))


def _dcgan_adam(lr: float) -> Factory:
    """The Adam of Radford et al. (2016, arXiv 1511.06434)."""
    return adam(lr, betas=(0.5, 0.999))


def _lipschitz(unit: float, weight: float) -> Penalty:
    """WGAN-GP's penalty (Gulrajani et al., 2017, arXiv 1704.00028)."""
    return gradient_penalty(weight * unit**2, 1 / unit)


def _r1(unit: float, weight: float) -> Penalty:
    """R1 (Mescheder et al., 2018, arXiv 1801.04406)."""
    return r1(weight * unit**2)


def _r1_and_r2(unit: float, weight: float) -> Penalty:
    """R1 and R2, as R3GAN has them (Huang et al., 2024, arXiv 2501.05441)."""
    return both(r1(weight * unit**2), r2(weight * unit**2))


def _unit(program: Any) -> float:
    """The size in x of the critic's unit of input, as penalties are on gradients by x."""
    return 1.0 if program.levels is None else (program.levels - 1) / 2


_GAN = Recipe(
    program=gan,
    family="adversarial models",
    summary="the non-saturating GAN",
    objective=partial(compare_x, divergence=non_saturating),
    optimizer=_quick,
    steps=10_000,
    batch_size=64,
    learning_rate=5e-4,
    average=0.999,
    traced=Traced,
    validate_every=None,
    estimators={},
    progression=6,
)
_LATENT = replace(_GAN, steps=6000, learning_rate=1e-3, schedule=cosine)
"""For programs with a guide."""

_TABLES: Mapping[str, object] = {
    "hidden": (128, 128, 128),
    "critic_hidden": (64, 64, 64),
    "steps": 16_000,
    "batch_size": 256,
    "learning_rate": 3e-3,
    "schedule": cosine,
    "traced": Compiled,
}
_DCGAN: Mapping[str, object] = {
    "latent": 64,
    "features": (64, 32),
    "critic_features": (32, 64),
    "optimizer": _dcgan_adam,
    "steps": 8000,
    "learning_rate": 1e-3,
    "schedule": cosine,
}
_PRESETS = (
    Preset(TABLE, _TABLES),
    Preset(PLANE, {"latent": 2}),
    Preset(SMALL_COLOUR, {"batch_size": 128, "steps": 5000}),
    Preset(LARGE, _DCGAN),
)
_FEWER_STEPS = (Preset(TABLE, {"steps": 8000}), Preset(SMALL_COLOUR, {"steps": 2500}), Preset(LARGE, {"steps": 4000}))
"""For five turns of the critic in each step."""
_SHARPER = Preset(TABLE, {"penalty_weight": 4.0, "anneal_to": 1e-7})
"""The penalty is large while modes are found, and falls, as a large one would keep the modes wide."""

RECIPES: dict[str, Recipe] = {
    "minimax-gan": replace(
        _GAN,
        summary="the minimax GAN of Goodfellow et al. (2014)",
        objective=partial(compare_x, divergence=jensen_shannon),
        presets=_PRESETS,
    ),
    "gan": replace(_GAN, presets=_PRESETS),
    "wgan-gp": replace(
        _GAN,
        summary="WGAN with gradient penalty",
        objective=partial(compare_x_smoothly, divergence=wasserstein, penalty=_lipschitz, penalty_weight=10.0, turns=5),
        steps=5000,
        presets=(*_PRESETS, *_FEWER_STEPS),
    ),
    "r1gan": replace(
        _GAN,
        summary="the non-saturating GAN with R1",
        objective=partial(compare_x_smoothly, divergence=non_saturating, penalty=_r1),
        presets=_PRESETS,
    ),
    "r3gan": replace(
        _GAN,
        summary="R3GAN: relativistic, with R1 and R2",
        objective=partial(compare_x_smoothly, divergence=relativistic, penalty=_r1_and_r2),
        presets=(*_PRESETS, _SHARPER),
    ),
    "conditional-gan": replace(
        _GAN,
        program=conditional_gan,
        summary="p(x | y), y the class, by a projection critic; R1",
        objective=partial(compare_x_smoothly, divergence=non_saturating, penalty=_r1),
        labelled=True,
        presets=_PRESETS,
    ),
    "ali": replace(
        _LATENT,
        program=ali,
        summary="adversarially learned inference: a GAN with an encoder",
        objective=compare_x_and_z,
        learning_rate=5e-4,
    ),
    "avb": replace(
        _LATENT,
        program=avb,
        summary="adversarial variational Bayes, with adaptive contrast",
        objective=compare_posteriors,
        progression=None,
    ),
    "aae": replace(
        _LATENT,
        program=aae,
        summary="an adversarial autoencoder",
        objective=compare_codes,
        estimators=bounds(),
        progression=None,
    ),
}
