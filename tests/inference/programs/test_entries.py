"""Entries of a batch: tensors, arrays, None and dicts of these, wherever a batch goes."""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO
from pyro.infer.autoguide import AutoNormal
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from inference import (
    SVI,
    Adversarial,
    Gradient,
    ImportanceWeighted,
    Pair,
    ProgramError,
    Step,
    Traced,
    adam,
    check,
    evaluate,
    exact,
    fit,
    importance,
    posterior,
    reconstruct,
    sample,
    terms,
)
from inference.programs.entries import joined, layout, leaves, mapped, named, refilled, rows_of
from inference.programs.program import as_batch
from inference.training.differentiate import Differentiate, backward

GENERATOR = torch.Generator().manual_seed(5)
X = torch.randn(6, 3, generator=GENERATOR)
Y = X @ torch.tensor([1.0, -1.0, 0.5]) + 0.1 * torch.randn(6, generator=GENERATOR)


class Regression(nn.Module):
    """A latent offset of each example between x and y; the guide looks at y where it is there."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.mean, self.encoder = nn.Linear(3, 1), nn.Linear(4, 2)

    def model(self, x: Tensor, y: Tensor | None = None) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
            pyro.sample("x", dist.Normal(z.unsqueeze(-1), 1.0).expand([len(x), 3]).to_event(1), obs=x)
            if y is not None:
                pyro.sample("y", dist.Normal(self.mean(x).squeeze(-1) + z, 1.0), obs=y)

    def guide(self, x: Tensor, y: Tensor | None = None) -> None:
        seen = torch.zeros_like(x[:, 0]) if y is None else y
        loc, scale = self.encoder(torch.cat([x, seen.unsqueeze(-1)], 1)).unbind(-1)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, scale.exp()))


class Named(Regression):
    """The same program on one dict."""

    def model(self, batch: dict[str, Tensor | None]) -> None:  # type: ignore[override]
        super().model(batch["x"], batch["y"])

    def guide(self, batch: dict[str, Tensor | None]) -> None:  # type: ignore[override]
        super().guide(batch["x"], batch["y"])


class Nested(Regression):
    """The same program on a tensor and a dict in a dict."""

    def model(self, x: Tensor, more: dict[str, dict[str, Tensor | None]]) -> None:  # type: ignore[override]
        super().model(x, more["labels"]["y"])

    def guide(self, x: Tensor, more: dict[str, dict[str, Tensor | None]]) -> None:  # type: ignore[override]
        super().guide(x, more["labels"]["y"])


FORMS = {
    "arrays": (Regression, (X.numpy(), Y.numpy())),
    "dict": (Named, {"x": X, "y": Y}),
    "dict of arrays": (Named, ({"x": X.numpy(), "y": Y.numpy()},)),
    "nested": (Nested, (X, {"labels": {"y": Y}})),
    "list": (Regression, [X, Y]),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_numbers_of_the_tensors(form: str) -> None:
    kind, batch = FORMS[form]
    program, plain = kind(), Regression()
    check(program, batch)

    def numbers(program: nn.Module, batch: object) -> list[Tensor]:
        torch.manual_seed(0)
        latents = posterior(program, batch, 3)
        drawn = [sample(program, batch, 2)["y"], reconstruct(program, batch, 2)["y"]]
        scored = terms(program, batch, 4).log_weights, terms(program, batch, latents=latents).log_weights
        one = [batch] if isinstance(batch, list) else batch  # a list holds batches here
        iwae = evaluate(program, one, {"iwae": importance(5)}, measured_on={"data": "test"})
        return [*latents.values(), *drawn, *scored, iwae.log_prob["iwae"]]

    torch.testing.assert_close(numbers(program, batch), numbers(plain, (X, Y)), rtol=0, atol=0)


@pytest.mark.parametrize("form", [form for form in FORMS if form != "list"])
@pytest.mark.parametrize(
    ("objective", "differentiate"),
    [
        (SVI, backward),
        (SVI, Traced()),
        (lambda program: SVI(program, Trace_ELBO()), backward),
        (lambda program: ImportanceWeighted(program, particles=3, gradient=Gradient.DOUBLY_REPARAMETERISED), backward),
    ],
    ids=["svi", "traced", "pyro's", "iwae"],
)
def test_every_form_trains_as_the_tensors_do(form: str, objective: type[SVI], differentiate: Differentiate) -> None:
    kind, batch = FORMS[form]
    weights = []
    for program, given in ((kind(), batch), (Regression(), (X, Y))):
        step = Step(objective(program), adam(0.01), average=0.9, differentiate=differentiate)
        fit(step, given, 3, progress=False)
        weights.append(nn.utils.parameters_to_vector(program.parameters()))
    torch.testing.assert_close(*weights, rtol=0, atol=0)


def test_none_comes_to_the_program_as_it_is() -> None:
    program = Regression()
    torch.manual_seed(0)
    missing = terms(program, (X, None), 2).log_weights
    torch.manual_seed(0)
    torch.testing.assert_close(missing, terms(program, X, 2).log_weights, rtol=0, atol=0)
    # Labels known for some batches alone, as in semi-supervised learning.
    step = Step(SVI(program), differentiate=Traced())
    assert fit(step, [(X, Y), (X, None), (X[:4], None)], 6, progress=False).steps == 6
    assert len(step.differentiate._graphs) == 3
    scores = evaluate(program, [(X, Y), (X, None)], {"iwae": importance(5)})
    assert scores.log_prob["iwae"].shape == (12,)


class _Rows(Dataset):
    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"x": X[index], "y": Y[index]}


def test_loaders_of_lists_and_of_dicts() -> None:
    for program, loader in ((Regression(), DataLoader(TensorDataset(X, Y), 3)), (Named(), DataLoader(_Rows(), 3))):
        fit(Step(SVI(program)), loader, 4, progress=False)
        scores = evaluate(program, loader, {"iwae": importance(5)})
        assert scores.log_prob["iwae"].shape == (6,)


def test_an_adversarial_objective_takes_every_form() -> None:
    class Critic(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 1)

        def forward(self, x: Tensor, z: Tensor) -> Tensor:
            return self.layer(torch.cat([x, z.unsqueeze(-1)], 1)).squeeze(-1)

    losses = []
    for kind, batch in ((Named, {"x": X, "y": Y}), (Nested, (X, {"labels": {"y": Y}})), (Regression, (X, Y))):
        torch.manual_seed(0)
        step = Step(Adversarial(kind(), Critic(), compare=("x", "z")), adam(0.01))
        losses.append([float(value) for _ in range(2) for value in step(batch).values()])
    assert losses[0] == losses[1] == losses[2]


def test_shared_latents_join_batches_of_dicts_and_know_them_again() -> None:
    def model(batch: dict[str, Tensor]) -> None:
        w = pyro.sample("w", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        with pyro.plate("data", len(batch["x"])):
            pyro.sample("y", dist.Normal(batch["x"] @ w, 1.0), obs=batch["y"])

    pair, whole = Pair(model, AutoNormal), {"x": X, "y": Y}
    parts = [{"x": X[rows], "y": Y[rows]} for rows in (slice(0, 2), slice(2, 6))]
    fit(Step(SVI(pair)), [whole, {"x": X.clone(), "y": Y.clone()}], 4, progress=False)
    with pytest.raises(ProgramError, match=r"shared by all examples, and the plate takes every batch"):
        fit(Step(SVI(pair)), parts, 4, progress=False)
    scores = [evaluate(pair, each, {"iwae": importance(5)}).mean("iwae") for each in (whole, parts)]
    assert scores[0] == scores[1]
    with pytest.raises(ProgramError, match=r"their entries are different: \{\"batch\[0\]\['x'\]\": \(3,\).* against "):
        evaluate(pair, [whole, {**whole, "more": Y}], {"iwae": importance(5)})


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ((X, [1.0, 2.0]), r"batch\[1\] is a list; expected a tensor or a numpy array"),
        ({"x": X, "names": ["a"] * 6}, r"batch\[0\]\['names'\] is a list"),
        ((X, {"y": 3.0}), r"batch\[1\]\['y'\] is a float"),
        ((X, {"labels": {"y": Y[:5]}}), r"share a first axis.*\"batch\[1\]\['labels'\]\['y'\]\": \(5,\)"),
        ((None, {}), "none, as there is no tensor"),
        (np.array(["a", "b"]), r"batch\[0\] is an array of <U1, of which there are no tensors"),
        ((X, np.array([object()] * 6)), r"batch\[1\] is an array of object"),
        (np.ma.masked_array(X.numpy(), X.numpy() > 0), r"batch\[0\] is a masked array"),
        (np.float32(3.0), r"batch\[0\] is a float32"),
        ((x for x in [X]), r"batch\[0\] is a generator"),
    ],
    ids=["list", "names", "number", "rows", "nothing", "text", "objects", "masked", "scalar", "generator"],
)
def test_what_is_no_entry_is_refused_by_its_place(batch: object, message: str) -> None:
    with pytest.raises(ProgramError, match=message):
        check(Regression(), batch)


def test_data_that_are_not_finite_are_named_by_their_place() -> None:
    with pytest.raises(ProgramError, match=r"batch\[1\]\['labels'\]\['y'\] is not finite at 1 of 6"):
        check(Nested(), (X, {"labels": {"y": torch.cat([Y[:5], torch.tensor([torch.nan])])}}))


def test_arrays_share_their_memory_where_torch_can() -> None:
    plain = X.numpy()
    still = plain.copy()
    still.flags.writeable = False
    for array in (plain, still, plain[::-1], plain[:, ::2]):
        (tensor,) = as_batch(array)
        np.testing.assert_array_equal(tensor.numpy(), array)
    assert as_batch(plain)[0].data_ptr() == X.data_ptr()
    assert as_batch(plain.astype(float))[0].dtype == torch.float64


class Writing(Named):
    def model(self, batch: dict[str, Tensor | None]) -> None:  # type: ignore[override]
        self.write(batch)
        super().model(batch)


@pytest.mark.parametrize(
    "write",
    [
        lambda batch: batch["y"].add_(1),
        lambda batch: batch.update(y=batch["y"] + 1),
        lambda batch: batch.update(z=batch["y"]),
    ],
    ids=["in place", "another tensor", "another entry"],
)
def test_a_program_that_writes_into_a_dict_is_refused(write) -> None:
    program, batch = Writing(), {"x": X, "y": Y.clone()}
    program.write = write
    with pytest.raises(ProgramError, match=r"the program writes into batch\[0\]\['[yz]'\]"):
        check(program, batch)
    assert batch.keys() == {"x", "y"}
    assert batch["y"].equal(Y)


def test_what_is_done_to_all_tensors_at_once() -> None:
    batch = as_batch((X, None, {"y": Y, "more": {"x": X}, "none": None}))
    assert list(named(batch)) == ["batch[0]", "batch[2]['y']", "batch[2]['more']['x']"]
    assert [tensor is other for tensor, other in zip(leaves(batch), (X, Y, X), strict=True)] == [True] * 3
    assert rows_of(batch[1:]) == 6
    doubled = mapped(lambda tensor: 2 * tensor, batch)
    assert doubled[1] is None
    assert doubled[2]["none"] is None
    assert doubled[2]["y"].equal(2 * Y)
    assert refilled(batch, leaves(doubled))[2]["more"]["x"].equal(2 * X)
    assert joined([batch, doubled])[2]["y"].equal(torch.cat([Y, 2 * Y]))
    kinds = {layout(each, lambda tensor: tensor.shape) for each in (batch, doubled, batch[:1], (X, None), (X, {}))}
    assert len(kinds) == 4


def test_exact_numbers_of_dicts() -> None:
    def model(batch: dict[str, Tensor]) -> None:
        with pyro.plate("data", len(batch["y"])):
            k = pyro.sample("k", dist.Bernoulli(torch.tensor(0.5)), infer={"enumerate": "parallel"})
            pyro.sample("y", dist.Normal(k, 1.0), obs=batch["y"])

    found = evaluate(Pair(model), {"y": Y}, {"exact": exact()}).log_prob["exact"]
    densities = torch.stack([dist.Normal(loc, 1.0).log_prob(Y) for loc in (0.0, 1.0)])
    torch.testing.assert_close(found, (densities.logsumexp(0) - np.log(2)).double(), rtol=0, atol=1e-6)


def test_batches_of_the_same_shapes_and_other_entries_are_of_another_kind() -> None:
    def model(x: Tensor, more: dict[str, Tensor]) -> None:
        (name,) = more
        loc = pyro.param(f"loc_{name}", torch.tensor(0.0))  # born with the first batch of its kind
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Normal(loc + ("w" in more), 1.0).expand([len(x)]), obs=more[name])

    losses = []
    for differentiate in (backward, Traced()):
        pair = Pair(model)
        step = Step(SVI(pair), adam(0.1), differentiate=differentiate)
        losses.append([float(step((X, {name: Y}))["loss"]) for name in ("y", "w", "y", "w")])
        assert all(each.detach() != 0 for each in pair.parameters())
    assert losses[0] == losses[1]
