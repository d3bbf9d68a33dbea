"""The adversarial objective: a critic estimates density ratios where densities are not available."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from inference.objectives.adversarial.comparison import (
    Comparison,
    comparison,
    contrast_of,
    critic_inputs,
    refuse_whole_numbers,
)
from inference.objectives.adversarial.contrast import Contrast
from inference.objectives.adversarial.divergences import Divergence, non_saturating, plug_in_kl
from inference.objectives.adversarial.joint_samples import exact_terms, log_prior, p_samples, q_samples
from inference.objectives.adversarial.monitor import Collapse, accuracy, calibration, coverage_and_precision, diversity
from inference.objectives.adversarial.penalties import Penalty, Values
from inference.objectives.objective import Objective, Player, factor
from inference.programs.check import check_batch, check_gradients, check_values
from inference.programs.dataset import Scope
from inference.programs.dtypes import explained_dtypes, widest_dtype
from inference.programs.entries import Examples, leaves, rows_of
from inference.programs.numbers import refuse_below
from inference.programs.program import Batch, Program, ProgramError, as_batch, buffers_kept, evaluating, parameters
from inference.programs.traces import runs


class Adversarial(Objective):
    """Fits a program by a critic's estimate T ≈ log q/p, where q is the joint of data and guide and p that of the model.

    Where a site has no log density for the loss of variational inference, the critic's estimate of a density ratio takes
    its place (Mohamed & Lakshminarayanan, 2016, arXiv 1610.03483; Tran, Ranganath & Blei, 2017, arXiv 1702.08896;
    Mescheder et al., 2017, arXiv 1701.04722). The critic minimises `divergence.critic(T_q, T_p)` plus its penalty; the
    program minimises minus the exact log p - log q of the sites that are not compared, plus
    `weight * divergence.program(T_q, T_p)`, per example.

    What is compared is read off the sites: x where its model site is implicit, and all local latents jointly where x or one
    of them is implicit. So a GAN is a model with an implicit x and an empty guide; with a guide that draws the latents it is
    ALI (arXiv 1606.00704); an implicit guide of an explicit model is adversarial variational Bayes. The critic's `forward`
    names what it is given: `(self, x)`, `(self, x, z)`, `(self, z)`, and any other argument of the model.

    Args:
        program: an `nn.Module` with `model` and `guide`.
        critic: an `nn.Module` that returns `(batch,)` numbers.
        divergence: between q and p, such as `inference.kl`. None is `plug_in_kl` beside exact terms, whose unit is the
            nat, and else `non_saturating`.
        compare: names of the sites to compare, where the sites do not say it (an adversarial autoencoder).
        contrast: an `nn.Module` whose `forward` returns an explicit r(z | …) of what it names, such as `(self, x)`. It is
            fitted to the guide's draws by the critic's player, and compared with them in place of a distant prior.
        size: of the dataset, by which terms of shared sites are divided; the plate's, if None.
        penalty: on the critic, such as `inference.r1()`.
        anneal: a factor on the penalty as a function of the step: large while modes are found, small while they are drawn.
        weight: of the divergence beside the exact terms.
        turns: the critic's turns in a step, on the same examples with draws of their own.

    Raises:
        ProgramError: the critic is no module, or the sites, the critic and the divergence do not go together.
    """

    _annealed: Tensor

    def __init__(
        self,
        program: Program,
        critic: nn.Module,
        divergence: Divergence | None = None,
        *,
        compare: Sequence[str] | None = None,
        contrast: nn.Module | None = None,
        size: int | None = None,
        penalty: Penalty | None = None,
        anneal: Callable[[int], float] | None = None,
        weight: float | None = None,
        turns: int = 1,
    ) -> None:
        super().__init__(program)
        if not isinstance(critic, nn.Module):
            raise ProgramError(
                f"critic: expected an nn.Module, got a {type(critic).__name__}; its parameters are trained."
            )
        refuse_below("turns", turns, 1)
        if size is not None:
            refuse_below("size", size, 1)
        self.critic, self.contrast, self.compare, self.size = critic, contrast, compare, size
        self.penalty, self.anneal, self.weight, self.turns = penalty, anneal, weight, turns
        self.register_buffer("_annealed", torch.tensor(1.0), persistent=False)
        self._divergence = divergence
        self._q_alone = False
        self._comparison: Comparison | None = None
        self._inputs: tuple[str, ...] = ()
        self._contrast: Contrast | None = None
        self._collapse = Collapse()

    def players(self) -> dict[str, Player]:
        critic = dict.fromkeys((*parameters(self.critic), *parameters(self.contrast)))  # they may share a network
        return {
            "critic": Player([*critic], self.critic_loss, self.turns),
            "program": Player(parameters(self.program), self.program_loss, log_density=bool(self._scored)),
        }

    @property
    def divergence(self) -> Divergence:
        """The divergence; where none was given, the one that suits the sites."""
        if self._divergence is not None:
            return self._divergence
        return plug_in_kl if self._found.exact or self._contrast else non_saturating

    def schedule(self, step: int) -> None:
        if self.anneal is not None:
            self._annealed.fill_(factor("anneal", step, self.anneal(step)))

    def prepare(self, batch: Batch) -> None:
        examples = as_batch(batch)
        check_batch(self.program, examples)
        players = self.players()
        if {*players["critic"].parameters} & {*players["program"].parameters}:
            raise ProgramError(
                "critic and program share parameters, and would undo each other's steps; copy the module."
            )
        with torch.no_grad():
            found = comparison(self.program, examples, self.compare)
            self._inputs = critic_inputs(self.critic, found, self.program, examples)
            self._comparison = found
            if self.contrast is not None:
                self._contrast = contrast_of(self.contrast, found, self.program, examples)
                with explained_dtypes(self.contrast, examples):
                    self._contrast.check(q_samples(self.program, examples, found)[1])
            q, p, _ = self._samples(examples)
            with explained_dtypes(self.critic, examples):
                self._check_shape(q, rows_of(examples))
            for samples in (q, p) if self.penalty is not None else ():
                refuse_whole_numbers(samples, found.compared)
        self._annealed = self._annealed.to(widest_dtype(self.critic))
        self._q_alone = self.divergence.q_alone
        if self.weight is None and (found.exact or self._contrast) and self.divergence.log_ratio is None:
            raise ProgramError(
                f"the sites {list(found.exact)} count in nats, and this divergence's critic is not in nats. Take one with a "
                "log_ratio (plug_in_kl, kl), or say what it weighs: weight=…"
            )

    def scope(self, batch: Examples) -> Scope:
        found = super().scope(batch)
        if self.size is None or not found.shared:
            return found
        if found.size not in (rows_of(batch), self.size):
            raise ProgramError(
                f"size: the program's plate says that the dataset has {found.size} examples, and size={self.size}. Say it "
                "once: leave size out."
            )
        return found._replace(size=self.size)

    def check(self, batch: Batch) -> None:
        check_values(runs(self.program, as_batch(batch))[0])
        q, p, log_r = self._samples(as_batch(batch))
        players = self.players()
        # Without the penalty: the values at which it takes its gradient would look like parameters that nothing trains.
        loss = self.divergence.critic(self._critic(q), self._critic(p)) - log_r.mean()
        check_gradients(loss, players["critic"].parameters, self)
        try:
            check_gradients(self.program_loss(batch), players["program"].parameters, self)
        except ProgramError as error:
            if not self._q_alone:
                raise
            raise ProgramError(
                f"{error} Or it is the divergence: one that depends on samples of q alone, as plug_in_kl does, gives no "
                "gradient to what the model draws; take kl, or non_saturating."
            ) from error

    def critic_loss(self, batch: Batch) -> Tensor:
        """The critic's loss, a mean over the batch; it sends no gradient to the program."""
        q, p, log_r = self._samples(as_batch(batch))
        loss = self.divergence.critic(self._critic(q), self._critic(p)) - log_r.mean()
        if self.penalty is None:
            return loss
        inputs = ({name: samples[name] for name in self._inputs} for samples in (q, p))
        return loss + self._annealed * self.penalty(self._critic, *inputs)

    def program_loss(self, batch: Batch) -> Tensor:
        """The program's loss, a mean over the batch."""
        examples = as_batch(batch)
        found = self._found
        guide, q = q_samples(self.program, examples, found)
        contrasted: tuple[str, ...] = ()
        if self._contrast is not None:
            q, p, log_r = self._contrast.whitened(q)
            contrasted = found.compared
            loss = self._weighed(q, p) + log_r.mean()
        elif self._q_alone:  # no sample of p is needed: a simulator is not run
            loss = self._weighed(q, q)
        else:
            loss = self._weighed(q, p_samples(self.program, examples, found, guide, q))
        if found.exact or contrasted:
            loss = loss - exact_terms(self.program, examples, found, guide, self.size, contrasted)
        return loss

    def monitor(self, batch: Batch) -> dict[str, Tensor]:
        """The critic's accuracy and calibration, and how diverse, covering and precise draws are against the data."""
        examples = as_batch(batch)
        with torch.no_grad():
            return self._critic_metrics(examples) | self._draw_metrics(examples)

    def _critic_metrics(self, examples: Examples) -> dict[str, Tensor]:
        """In the critic's own mode: in eval mode a BatchNorm would make another critic of it."""
        with buffers_kept(self):
            q, p, _ = self._samples(examples)
            values = self._critic(q), self._critic(p)
        found = {"critic/accuracy": accuracy(*values)}
        if self.divergence.log_ratio is not None:
            found["critic/calibration"] = calibration(self.divergence.log_ratio(values[1]))
        return found

    def _draw_metrics(self, examples: Examples) -> dict[str, Tensor]:
        """Of draws in eval mode: p against data, or the guide's q against p where no data are compared."""
        with evaluating(self):
            q, p, _ = self._samples(examples)
        site = (self._found.observed or self._found.compared)[0]
        aim, drawn = (q[site], p[site]) if self._found.observed else (p[site], q[site])
        if len(aim) < 2 or not aim.is_floating_point():
            return {}
        shares = diversity(aim, drawn), *coverage_and_precision(aim, drawn)
        if self._found.observed or self.compare:  # a posterior is narrower than its prior
            self._collapse.monitor(*shares)
        return dict(zip(("program/diversity", "program/coverage", "program/precision"), shares, strict=True))

    def log_ratio(self, batch: Batch) -> Tensor:
        """log q/p of the compared values on data and guide, by the critic: `(batch,)` nats. An estimate, and no bound.

        With a contrast it is log q/r, by the critic, plus the exact log r/p.

        Raises:
            ProgramError: the divergence's critic estimates no ratio.
        """
        if self._comparison is None:
            self.prepare(batch)
        if self.divergence.log_ratio is None:
            raise ProgramError(
                "the critic of this divergence is a margin or a potential, and no log ratio. Take a divergence with a "
                "log_ratio, such as kl or non_saturating."
            )
        with torch.no_grad(), evaluating(self):
            guide, q = q_samples(self.program, as_batch(batch), self._found)
            if self._contrast is None:
                return self.divergence.log_ratio(self._critic(q))
            whitened, _, log_r = self._contrast.whitened(q)
            return (
                self.divergence.log_ratio(self._critic(whitened))
                + log_r
                - log_prior(self.program, as_batch(batch), guide, self._contrast.site)
            )

    @property
    def _scored(self) -> tuple[str, ...]:
        return () if self._comparison is None else self._comparison.scored

    @property
    def _found(self) -> Comparison:
        assert self._comparison is not None, "`prepare` comes first"
        return self._comparison

    def _samples(self, examples: Examples) -> tuple[Values, Values, Tensor]:
        """The samples that the critic compares, without a gradient to the program; and log r of the guide's draws, or 0."""
        with torch.no_grad():
            guide, q = q_samples(self.program, examples, self._found)
            if self._contrast is None:
                p = p_samples(self.program, examples, self._found, guide, q)
                return q, p, torch.zeros((), device=leaves(examples)[0].device)
        q, p, log_r = self._contrast.whitened(q)
        return {name: value.detach() for name, value in q.items()}, p, log_r  # r is fitted by log r alone

    def _weighed(self, q: Values, p: Values) -> Tensor:
        weight, values = 1.0 if self.weight is None else self.weight, self._critic(q)
        return weight * self.divergence.program(values, values if self._q_alone else self._critic(p))

    def _critic(self, values: Values) -> Tensor:
        found: Tensor = self.critic(**{name: values[name] for name in self._inputs})
        return found.to(torch.promote_types(found.dtype, torch.float32))  # under autocast, beside exact nats

    def _check_shape(self, q: Values, rows: int) -> None:
        shape = tuple(self._critic(q).shape)
        if shape != (rows,):
            raise ProgramError(
                f"critic: expected one number for each example, shape ({rows},), got {shape}; let its forward end with "
                ".squeeze(1)"
            )
