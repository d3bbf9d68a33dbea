"""Preflight: each fault is found on the first batch, and named with its site and remedy."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO, TraceEnum_ELBO
from torch import Tensor, nn

from inference import SVI, ImportanceWeighted, NonFinite, Pair, ProgramError, Step, Validation, adam, check, exact, fit
from tests.problems import LinearGaussian, Mixture, SharedMean

X = torch.rand(6, 4)


class Vae(nn.Module):
    """A small VAE whose parts can be replaced by faulty ones."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(4, 4)
        self.decoder = nn.Linear(2, 4)

    def model(self, x: Tensor) -> Tensor:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            return pyro.sample("x", self.likelihood(z), obs=self.observed(x))

    def guide(self, x: Tensor) -> None:
        loc, log_scale = self.encoder(x).chunk(2, -1)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))

    def likelihood(self, z: Tensor) -> dist.Distribution:
        return dist.Normal(self.decoder(z), 1.0).to_event(1)

    def observed(self, x: Tensor) -> Tensor:
        return x


@pytest.mark.parametrize(
    ("program", "batch"),
    [
        (Vae(), X),
        (LinearGaussian(), LinearGaussian.data()),
        (Mixture(), Mixture.data()),
        (SharedMean(6), X[:, 0].double()),
    ],
)
def test_a_sound_program_passes_in_silence(program: nn.Module, batch: Tensor) -> None:
    check(program, batch)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_bad_data_are_named_by_index(value: float) -> None:
    x = X.clone()
    x[4, 2] = value
    with pytest.raises(
        ProgramError, match=rf"batch\[0\] is not finite at 1 of 24 places, first at index \(4, 2\) \({value}\)"
    ):
        check(Vae(), x)


def test_grey_pixels_under_a_bernoulli() -> None:
    class Grey(Vae):
        def likelihood(self, z: Tensor) -> dist.Distribution:
            return dist.Bernoulli(logits=self.decoder(z)).to_event(1)

    with pytest.raises(
        ProgramError, match=r"site 'x'.*outside its support.*24 of 24.*Binarise.*discretised likelihood"
    ):
        check(Grey(), X)
    check(Grey(), X.round())


def test_a_guide_outside_the_priors_support() -> None:
    class Positive(Vae):
        def model(self, x: Tensor) -> None:
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Gamma(x.new_ones(2), 1.0).to_event(1))
                pyro.sample("x", self.likelihood(z), obs=x)

    with pytest.raises(ProgramError, match=r"site 'z' \(Independent\) has values outside its support"):
        check(Positive(), X)


def test_an_observation_of_one_row() -> None:
    class OneRow(Vae):
        def observed(self, x: Tensor) -> Tensor:
            return x[:1]

    with pytest.raises(ProgramError, match=r"'x' has a value of shape \(1, 4\).*6 examples.*broadcast"):
        check(OneRow(), X)
    with pytest.raises(ProgramError, match=r"'x' has a value of shape \(1, 4\)"):
        SVI(OneRow(), Trace_ELBO()).check(X)


def test_a_forgotten_event() -> None:
    class NoEvent(Vae):
        def model(self, x: Tensor) -> None:
            with pyro.plate("data", len(x), dim=-2):
                z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0))
                pyro.sample("x", dist.Normal(self.decoder(z), 1.0), obs=x)

        def guide(self, x: Tensor) -> None:
            loc, log_scale = self.encoder(x).chunk(2, -1)
            with pyro.plate("data", len(x), dim=-2):
                pyro.sample("z", dist.Normal(loc, log_scale.exp()))

    with pytest.raises(ProgramError, match=r"log density of shape \(6, [24]\).*belong to no plate.*to_event\(1\)"):
        check(NoEvent(), X)


def test_parameters_that_no_gradient_reaches_are_named() -> None:
    program = Vae()
    program.unused = nn.Linear(2, 2)
    with pytest.raises(ProgramError, match=r"no gradient reaches the parameters \['unused.weight', 'unused.bias'\]"):
        check(program, X)
    for parameter in program.unused.parameters():
        parameter.requires_grad_(False)
    check(program, X)


def test_modules_that_the_pair_was_not_given_are_noticed() -> None:
    holder = {"vae": Vae()}  # out of sight of the function's own names
    with pytest.raises(
        ProgramError, match=r"parameters of the shapes .*does not hold.*Pair\(model, guide, \*modules\)"
    ):
        check(Pair(lambda x: holder["vae"].model(x), LambdaGuide()), X)


class LambdaGuide(nn.Module):
    """A guide whose own parameters are found, so that only the model's are missing."""

    def __init__(self) -> None:
        super().__init__()
        self.loc = nn.Parameter(torch.zeros(2))

    def forward(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.loc, 1.0).to_event(1))


def test_no_influence_at_all() -> None:
    class Frozen(Vae):
        def __init__(self) -> None:
            super().__init__()
            self.encoder.requires_grad_(False)
            self.decoder.requires_grad_(False)
            self.other = nn.Parameter(torch.zeros(2))

    with pytest.raises(ProgramError, match="no parameter has any influence on the loss"):
        check(Frozen(), X)


def test_interfaces() -> None:
    class OnlyModel(nn.Module):
        def model(self, x: Tensor) -> None: ...

    with pytest.raises(ProgramError, match=r"has no `guide`. Wrap Pyro functions as Pair"):
        check(OnlyModel(), X)
    with pytest.raises(ProgramError, match=r"cannot be called with the batch's 2 entries.*signature is \(x"):
        check(Vae(), (X, X))
    with pytest.raises(ProgramError, match=r"is an nn.Module.*Pair\(model, guide, \*modules\)"):
        SVI(object())


def test_a_latent_missing_under_a_pyro_estimator_unless_it_is_enumerated() -> None:
    program = Mixture()
    silent = Pair(program.model, lambda x: None)
    with pytest.raises(ProgramError, match=r"missing from the guide: \['k'\].*enumerate"):
        SVI(silent, Trace_ELBO()).check(Mixture.data())
    from pyro.infer import config_enumerate

    enumerated = Pair(config_enumerate(program.model))
    for name in ("slope", "intercept"):
        getattr(program, name).requires_grad_(False)
    SVI(enumerated, TraceEnum_ELBO(max_plate_nesting=1)).check(Mixture.data())
    check(enumerated, Mixture.data())


def test_an_estimator_that_does_not_suit_is_refused_before_training() -> None:
    step = Step(SVI(Vae()))
    validation = Validation(X, every=5, estimator=exact())
    with pytest.raises(ProgramError, match="has no finite support to sum over"):
        fit(step, X, 5, validation=validation, progress=False)
    assert step.count == 0


def test_fit_checks_the_first_batch() -> None:
    with pytest.raises(ProgramError, match="batch\\[0\\] is not finite"):
        fit(Step(SVI(Vae())), torch.full((3, 4), math.nan), 5, progress=False)


class Exploding(Vae):
    """Its guide's scale overflows once the switch is set."""

    broken = False

    def guide(self, x: Tensor) -> None:
        loc, log_scale = self.encoder(x).chunk(2, -1)
        scale = (log_scale + (1e4 if self.broken else 0.0)).exp()
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, scale).to_event(1))


@pytest.mark.parametrize("validation", [True, False])
@pytest.mark.parametrize("objective", [SVI, ImportanceWeighted])
def test_a_loss_that_is_not_finite_stops_before_it_touches_a_parameter(objective, validation: bool) -> None:
    program = Exploding()
    step = Step(objective(program), adam(1e-3))
    step(X)
    before = {name: value.clone() for name, value in program.state_dict().items()}
    program.broken = True
    with (
        pyro.validation_enabled(validation),
        pytest.raises(NonFinite, match=r"at step 1; the first such site is 'z' of the guide"),
    ):
        step(X)
    for name, value in program.state_dict().items():
        assert torch.equal(value, before[name])


def test_a_gradient_that_is_not_finite_stops_too() -> None:
    class Root(Vae):
        zero = 1.0

        def likelihood(self, z: Tensor) -> dist.Distribution:
            return dist.Normal(self.decoder(z) + (self.decoder.bias * self.zero).abs().sqrt().sum(), 1.0).to_event(1)

    program = Root()
    step = Step(SVI(program))
    step(X)
    program.zero = 0.0  # the square root at 0 has an infinite derivative and a finite value
    with pytest.raises(NonFinite, match="every site is finite; the gradient is not"):
        step(X)
    assert all(parameter.isfinite().all() for parameter in program.parameters())


def test_a_later_batch_that_is_not_finite_is_named() -> None:
    bad = X.clone()
    bad[2, 1] = math.nan
    with pytest.raises(NonFinite, match="at step 1"):
        fit(Step(SVI(Vae())), [X, bad], 4, progress=False)


def test_an_iterator_cannot_validate_twice() -> None:
    with pytest.raises(ProgramError, match="an iterator ends after the first time"):
        Validation(iter([X]))
