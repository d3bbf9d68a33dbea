"""Inference in implicit models: a critic estimates the density ratios that no density gives."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from inference.check import check_batch, check_gradients
from inference.compared import Structure, exact_terms, p_side, q_side, seen_by, structure
from inference.divergences import Divergence, non_saturating
from inference.objective import Objective, Player
from inference.penalties import Penalty, Values
from inference.program import Batch, Program, ProgramError, as_batch, parameters


class Adversarial(Objective):
    """A game of a program and a critic T ≈ log q/p, where q is data and guide and p the model.

    Wherever the loss of variational inference needs a log density that does not exist, the critic's estimate of a ratio
    takes its place (Mohamed & Lakshminarayanan, 2016, arXiv 1610.03483; Tran, Ranganath & Blei, 2017, arXiv 1702.08896;
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
        divergence: what the two play for, from `inference.divergences`.
        compare: names of the sites to compare, where the sites alone can not tell (an adversarial autoencoder).
        penalty: on the critic, from `inference.penalties`.
        weight: of the divergence beside the exact terms.
        turns: the critic's turns in a step.

    Raises:
        ProgramError: the critic is no module, or the sites, the critic and the divergence do not go together.
    """

    def __init__(
        self,
        program: Program,
        critic: nn.Module,
        divergence: Divergence = non_saturating,
        *,
        compare: Sequence[str] | None = None,
        penalty: Penalty | None = None,
        weight: float | None = None,
        turns: int = 1,
    ) -> None:
        super().__init__(program)
        if not isinstance(critic, nn.Module):
            raise ProgramError(
                f"critic: expected an nn.Module, got a {type(critic).__name__}; its parameters are trained."
            )
        self.critic, self.divergence, self.compare = critic, divergence, compare
        self.penalty, self.weight, self.turns = penalty, weight, turns
        self._structure: Structure | None = None
        self._seen: tuple[str, ...] = ()

    def players(self) -> dict[str, Player]:
        return {
            "critic": Player(parameters(self.critic), self.critic_loss, self.turns),
            "program": Player(parameters(self.program), self.program_loss),
        }

    def prepare(self, batch: Batch) -> None:
        examples = as_batch(batch)
        check_batch(self.program, examples)
        with torch.no_grad():
            found = structure(self.program, examples, self.compare)
            self._seen = seen_by(self.critic, found, self.program, examples)
            self._structure = found
            _, q = q_side(self.program, examples, found)
            self._values(q, len(examples[0]))
        if self.weight is None and found.exact and self.divergence.log_ratio is None:
            raise ProgramError(
                f"the sites {list(found.exact)} count in nats, and this divergence's critic is not in nats. Take one with a "
                "log_ratio (plug_in_kl, kl), or say what it weighs: weight=…"
            )

    def check(self, batch: Batch) -> None:
        q, p = self._sides(as_batch(batch))
        players = self.players()
        # Without the penalty, whose gradient at values of its own would look like parameters that nobody holds.
        check_gradients(self.divergence.critic(self._critic(q), self._critic(p)), players["critic"].parameters, self)
        try:
            check_gradients(self.program_loss(batch), players["program"].parameters, self)
        except ProgramError as error:
            raise ProgramError(
                f"{error} Or it is the divergence: one that is a mean over the q side alone, as plug_in_kl is, gives no "
                "gradient to what the model draws; take non_saturating."
            ) from error

    def critic_loss(self, batch: Batch) -> Tensor:
        """What the critic minimises; no gradient is left in the program."""
        q, p = self._sides(as_batch(batch))
        loss = self.divergence.critic(self._critic(q), self._critic(p))
        if self.penalty is None:
            return loss
        return loss + self.penalty(self._critic, *({name: side[name] for name in self._seen} for side in (q, p)))

    def program_loss(self, batch: Batch) -> Tensor:
        """What the program minimises, per example."""
        examples = as_batch(batch)
        found = self._found
        guide, q = q_side(self.program, examples, found)
        p = p_side(self.program, examples, found, q)
        weight = 1.0 if self.weight is None else self.weight
        loss = weight * self.divergence.program(self._critic(q), self._critic(p))
        return loss - exact_terms(self.program, examples, found, guide) if found.exact else loss

    def log_ratio(self, batch: Batch) -> Tensor:
        """The critic's log q/p of the compared values, on data and guide: `(batch,)` nats. An estimate, and no bound.

        Raises:
            ProgramError: the divergence's critic tells no ratio.
        """
        if self.divergence.log_ratio is None:
            raise ProgramError("the critic of this divergence is a sign or a potential, and tells no log ratio.")
        if self._structure is None:
            self.prepare(batch)
        with torch.no_grad():
            _, q = q_side(self.program, as_batch(batch), self._found)
            return self.divergence.log_ratio(self._critic(q))

    @property
    def _found(self) -> Structure:
        assert self._structure is not None, "`prepare` comes first"
        return self._structure

    @torch.no_grad()
    def _sides(self, examples: tuple[Tensor, ...]) -> tuple[Values, Values]:
        _, q = q_side(self.program, examples, self._found)
        return q, p_side(self.program, examples, self._found, q)

    def _critic(self, values: Values) -> Tensor:
        found: Tensor = self.critic(**{name: values[name] for name in self._seen})
        return found

    def _values(self, q: Values, rows: int) -> None:
        shape = tuple(self._critic(q).shape)
        if shape != (rows,):
            raise ProgramError(
                f"critic: expected one number for each example, shape ({rows},), got {shape}; let its forward end with "
                ".squeeze(1)"
            )
