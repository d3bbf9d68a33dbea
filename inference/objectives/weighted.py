"""What weights of several draws need: that all are of the same examples, and of all examples that share a site."""

from inference.programs.execution import Run
from inference.programs.program import ProgramError
from inference.programs.terms import Terms


def refuse_own_subsample(run: Run, rows: int, instead: str) -> None:
    """Raises a ProgramError where each particle would be of other examples; `instead` is what can be used."""
    if run.plate is not None and run.plate.size != rows:
        raise ProgramError(
            f"the program draws its own subsample of {run.plate.size} from {rows} examples, another one for "
            "each particle, so their weights belong to different examples. Pass batches to the program and use "
            f"pyro.plate('data', len(x)), or {instead}."
        )


def refuse_part_of_the_data(drawn: Terms) -> None:
    """Raises a ProgramError where examples that share a site are not all in the batch."""
    if drawn.shared is not None and drawn.shared.size != drawn.likelihood.shape[1]:
        raise ProgramError(
            f"the program shares sites between all {drawn.shared.size} examples and the batch holds "
            f"{drawn.likelihood.shape[1]}: a bound that is not linear in the log-weights does not hold on a part of "
            "the data. Give the whole dataset as one batch, or use SVI."
        )
