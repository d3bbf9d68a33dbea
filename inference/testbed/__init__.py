"""Programs whose evidence and posterior are known, to try an estimator or a guide on; float64 throughout.

Each is a program with

- `log_evidence(x)`: log p(x) in closed form, in nats, `(batch,)`; of `SharedMean`, whose examples share a latent, `()`,
- `posterior(x)`: mean and variance of every latent site given x, as `Moments` by site,
- `batch(n, seed)`: n examples that its own model draws.

The guide is the exact posterior, so that every draw's weight is the evidence and the ELBO equals it; `error` moves it away.
The guide of `Funnel` is close to the posterior, and never it.
"""

from inference.testbed.beta_bernoulli import BetaBernoulli
from inference.testbed.funnel import Funnel
from inference.testbed.gamma_poisson import GammaPoisson
from inference.testbed.hidden_markov import HiddenMarkov
from inference.testbed.linear_gaussian import LinearGaussian
from inference.testbed.mixture import Mixture
from inference.testbed.moments import Moments
from inference.testbed.shared_mean import SharedMean

__all__ = [
    "BetaBernoulli",
    "Funnel",
    "GammaPoisson",
    "HiddenMarkov",
    "LinearGaussian",
    "Mixture",
    "Moments",
    "SharedMean",
]
