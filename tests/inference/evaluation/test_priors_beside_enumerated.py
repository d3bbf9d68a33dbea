"""Bayesian mixtures, topic models and Markov chains as users of Pyro write them, against the evidence by brute force.

Discrete parts are summed, continuous ones are an AutoGuide's. Every evidence is known: by all assignments, as Dirichlet,
Beta and normal priors integrate out given these, or on a grid.
"""

import itertools
import math

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.infer import TraceEnum_ELBO, config_enumerate
from pyro.infer.autoguide import AutoMultivariateNormal, AutoNormal, init_to_mean
from torch import Tensor

from inference import (
    SVI,
    ImportanceWeighted,
    Objective,
    Pair,
    Step,
    adam,
    evaluate,
    exact,
    fit,
    importance,
    reconstruct,
)

IN_PARALLEL = {"enumerate": "parallel"}


def _fitted(objective: Objective, data: Tensor, steps: int = 250, rate: float = 0.05) -> float:
    """The bound on the evidence by weighted draws from the fitted guide, in nats."""
    torch.manual_seed(0)
    step = Step(objective, adam(rate), learning_rate=lambda k: 1.0 if k < steps // 2 else 0.2)
    fit(step, data, steps, progress=False)
    found = evaluate(objective.program, data, {"iwae": importance(400)})
    assert not found.per_example
    assert found.noise("iwae") < 0.05
    return found.mean("iwae")


# --- a mixture of normals with priors on everything ---------------------------------------------------------------------

HEIGHTS = torch.tensor([-2.3, -1.7, -2.1, -1.2, -2.6, 0.9, 1.8, 2.2, 1.4, 2.7, 2.0, 1.1], dtype=torch.float64)


def mixture(x: Tensor) -> None:
    weights = pyro.sample("weights", dist.Dirichlet(x.new_tensor([4.0, 6.0])))
    scale = pyro.sample("scale", dist.LogNormal(x.new_tensor(-0.5), 0.5))
    with pyro.plate("components", 2):
        means = pyro.sample("means", dist.Normal(x.new_tensor([-2.0, 2.0]), 0.7))
    with pyro.plate("data", len(x)):
        k = pyro.sample("k", dist.Categorical(weights), infer=IN_PARALLEL)
        pyro.sample("x", dist.Normal(means[k], scale), obs=x)


def _evidence_of_mixture(x: Tensor, points: int = 40) -> float:
    """On a grid over the weight, the logarithm of the scale, and both means."""
    weight = (torch.arange(points, dtype=torch.float64) + 0.5) / points
    log_scale = torch.linspace(-2.5, 1.5, points, dtype=torch.float64)
    mean = [torch.linspace(centre - 3, centre + 3, points, dtype=torch.float64) for centre in (-2.0, 2.0)]
    # (scale, mean, x) densities of each component; then (scale, first mean, second mean) for one weight after the other.
    density = [dist.Normal(m[:, None], log_scale.exp()[:, None, None]).log_prob(x) for m in mean]
    prior = dist.Normal(torch.tensor(-0.5, dtype=torch.float64), 0.5).log_prob(log_scale)[:, None, None]
    prior = prior + dist.Normal(-2.0, 0.7).log_prob(mean[0])[:, None] + dist.Normal(2.0, 0.7).log_prob(mean[1])
    of_weight = dist.Beta(torch.tensor(4.0, dtype=torch.float64), 6.0).log_prob(weight)
    slices = [
        (prior + torch.logaddexp(w.log() + density[0][:, :, None], (1 - w).log() + density[1][:, None]).sum(-1))
        .flatten()
        .logsumexp(0)
        for w in weight
    ]
    cell = math.log(1 / points) + sum(float((axis[1] - axis[0]).log()) for axis in (log_scale, *mean))
    return float((of_weight + torch.stack(slices)).logsumexp(0) + cell)


def test_a_mixture_with_priors_on_everything() -> None:
    program = Pair(mixture, AutoMultivariateNormal, hide=["k"])
    objective = SVI(program, TraceEnum_ELBO(max_plate_nesting=1))
    assert abs(_fitted(objective, HEIGHTS) - _evidence_of_mixture(HEIGHTS)) < 0.1
    assigned = reconstruct(program, HEIGHTS, 20)["k"].double().mean(0)
    assert torch.equal(assigned > 0.5, HEIGHTS > 0)


# --- latent Dirichlet allocation ----------------------------------------------------------------------------------------

DOCUMENTS = torch.tensor([[0, 0, 1, 0], [2, 1, 2, 2], [0, 2, 0, 1]])
TOPICS = torch.tensor([[14.0, 4.0, 2.0], [2.0, 4.0, 14.0]], dtype=torch.float64)
OF_TOPICS = torch.tensor([4.0, 4.0], dtype=torch.float64)


def lda(documents: Tensor) -> None:
    with pyro.plate("topics", 2):
        words = pyro.sample("topic_words", dist.Dirichlet(TOPICS))
    with pyro.plate("documents", len(documents), dim=-2):
        topics = pyro.sample("document_topics", dist.Dirichlet(OF_TOPICS))
        with pyro.plate("words", documents.shape[1], dim=-1):
            topic = pyro.sample("word_topic", dist.Categorical(topics), infer=IN_PARALLEL)
            pyro.sample("words_seen", dist.Categorical(words[topic]), obs=documents)


def _dirichlet_multinomial(prior: Tensor, counts: Tensor) -> Tensor:
    """log p of a sequence with these counts, its probabilities integrated over a Dirichlet prior."""
    ratio = torch.lgamma(prior + counts).sum(-1) - torch.lgamma(prior).sum(-1)
    return torch.lgamma(prior.sum(-1)) - torch.lgamma(prior.sum(-1) + counts.sum(-1)) + ratio


def _evidence_of_lda(documents: Tensor) -> float:
    words = documents.numel()
    assigned = torch.tensor(list(itertools.product(range(2), repeat=words))).reshape(-1, *documents.shape)
    by_topic = torch.nn.functional.one_hot(assigned, 2).double()
    seen = torch.nn.functional.one_hot(documents, 3).double()
    of_documents = _dirichlet_multinomial(OF_TOPICS, by_topic.sum(2)).sum(1)
    of_topics = _dirichlet_multinomial(TOPICS, torch.einsum("adwt,dwv->atv", by_topic, seen)).sum(1)
    return float((of_documents + of_topics).logsumexp(0))


def test_latent_dirichlet_allocation() -> None:
    program = Pair(lda, AutoNormal(poutine.block(lda, hide=["word_topic"])))
    assert abs(_fitted(SVI(program), DOCUMENTS) - _evidence_of_lda(DOCUMENTS)) < 0.1


# --- a hidden Markov model with priors ----------------------------------------------------------------------------------

SEQUENCES = torch.tensor([[0, 0, 1, 1], [1, 1, 1, 0], [0, 0, 0, 1]])
STAYS = torch.tensor([[9.0, 4.0], [4.0, 9.0]], dtype=torch.float64)
EMITS = torch.tensor([[10.0, 4.0], [4.0, 10.0]], dtype=torch.float64)


def hidden_markov(sequences: Tensor) -> None:
    with pyro.plate("states", 2):
        transition = pyro.sample("transition", dist.Dirichlet(STAYS))
        emission = pyro.sample("emission", dist.Dirichlet(EMITS))
    with pyro.plate("sequences", len(sequences)):
        state = torch.zeros(len(sequences), dtype=torch.long)
        for t in pyro.markov(range(sequences.shape[1])):
            state = pyro.sample(f"state_{t}", dist.Categorical(transition[state]), infer=IN_PARALLEL)
            pyro.sample(f"seen_{t}", dist.Categorical(emission[state]), obs=sequences[:, t])


def _evidence_of_hidden_markov(sequences: Tensor) -> float:
    paths = torch.tensor(list(itertools.product(range(2), repeat=sequences.numel()))).reshape(-1, *sequences.shape)
    states = torch.nn.functional.one_hot(paths, 2).double()
    before = torch.cat(
        [torch.nn.functional.one_hot(torch.zeros_like(paths[:, :, :1]), 2).double(), states[:, :, :-1]], 2
    )
    moves = torch.einsum("psti,pstj->pij", before, states)
    seen = torch.einsum("psti,stj->pij", states, torch.nn.functional.one_hot(sequences, 2).double())
    return float((_dirichlet_multinomial(STAYS, moves) + _dirichlet_multinomial(EMITS, seen)).sum(1).logsumexp(0))


def test_a_hidden_markov_model_with_priors() -> None:
    states = [f"state_{t}" for t in range(SEQUENCES.shape[1])]
    program = Pair(hidden_markov, AutoMultivariateNormal, hide=states)
    assert abs(_fitted(SVI(program), SEQUENCES) - _evidence_of_hidden_markov(SEQUENCES)) < 0.1


# --- a Dirichlet process mixture, its sticks broken off at three --------------------------------------------------------

POINTS = torch.tensor([-3.2, -2.8, 0.1, 3.1, 2.7, 2.9], dtype=torch.float64)
CENTRES = torch.tensor([-3.0, 3.0, 0.0], dtype=torch.float64)
ALPHA = 1.5


def sticks(betas: Tensor) -> Tensor:
    """The lengths of the pieces of a stick that is broken again and again."""
    remaining = torch.cat([betas.new_ones(*betas.shape[:-1], 1), (1 - betas).cumprod(-1)], -1)
    return torch.cat([betas, betas.new_ones(*betas.shape[:-1], 1)], -1) * remaining


def dirichlet_process_mixture(x: Tensor) -> None:
    with pyro.plate("breaks", 2):
        betas = pyro.sample("betas", dist.Beta(x.new_tensor(1.0), ALPHA))
    with pyro.plate("clusters", 3):
        means = pyro.sample("means", dist.Normal(CENTRES, 1.0))
    with pyro.plate("data", len(x)):
        cluster = pyro.sample("cluster", dist.Categorical(sticks(betas)))
        pyro.sample("x", dist.Normal(means[cluster], 0.6), obs=x)


def _evidence_of_dirichlet_process(x: Tensor) -> float:
    assigned = torch.tensor(list(itertools.product(range(3), repeat=len(x))))
    member = torch.nn.functional.one_hot(assigned, 3).double()
    counts = member.sum(1)
    later = counts.flip(1).cumsum(1).flip(1) - counts
    of_sticks = sum(
        torch.lgamma(1 + counts[:, j])
        + torch.lgamma(ALPHA + later[:, j])
        - torch.lgamma(1 + ALPHA + counts[:, j] + later[:, j])
        + math.log(ALPHA)
        for j in range(2)
    )
    of_clusters = 0.0
    for j in range(
        3
    ):  # each cluster's members are jointly normal, its mean integrated out; the others count for nothing
        mask = member[:, :, j]
        covariance = mask.unsqueeze(2) * mask.unsqueeze(1) + 0.36 * torch.eye(len(x), dtype=torch.float64)
        joint = dist.MultivariateNormal(torch.zeros_like(x), covariance).log_prob(mask * (x - CENTRES[j]))
        of_clusters = of_clusters + joint - (1 - mask).sum(1) * dist.Normal(0.0, 0.6).log_prob(x.new_zeros(()))
    return float((of_sticks + of_clusters).logsumexp(0))


def test_a_dirichlet_process_mixture() -> None:
    model = config_enumerate(dirichlet_process_mixture)
    guide = AutoNormal(poutine.block(model, hide=["cluster"]), init_loc_fn=init_to_mean)
    assert (
        abs(
            _fitted(ImportanceWeighted(Pair(model, guide), particles=2), POINTS)
            - _evidence_of_dirichlet_process(POINTS)
        )
        < 0.1
    )


def test_what_is_discrete_alone_is_exact_beside_fixed_parameters() -> None:
    """The same mixture with its parameters known: exact(), and importance() of any number of particles, agree."""

    def fixed(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Categorical(x.new_tensor([0.4, 0.6])), infer=IN_PARALLEL)
            pyro.sample("x", dist.Normal(x.new_tensor([-2.0, 2.0])[k], 0.5), obs=x)

    found = evaluate(Pair(fixed), HEIGHTS, {"exact": exact(), "iwae": importance(3)})
    torch.testing.assert_close(found.log_prob["exact"], found.log_prob["iwae"])
    assert found.noise("iwae") == 0
