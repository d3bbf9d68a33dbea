"""The command line. Heavy imports wait until a command needs them: --help must be quick."""

import sys
import warnings

import typer

from ppmodels.app.cli.guides import calibrate, diagnose, export
from ppmodels.app.cli.numbers import compare, evaluate
from ppmodels.app.cli.pictures import complete, reconstruct, sample
from ppmodels.app.cli.printing import clean, say
from ppmodels.app.cli.study import study
from ppmodels.app.cli.training import recipes, resume, train, trust
from ppmodels.app.streams import forgive

app = typer.Typer(
    help="Deep generative models as probabilistic programs: train a recipe, evaluate it, sample it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for command in (
    *(recipes, train, resume, evaluate, compare, study, diagnose, calibrate, export),
    *(sample, reconstruct, complete, trust),
):
    app.command()(command)


def main() -> None:
    """The command line."""
    forgive()
    warnings.showwarning = lambda message, *about, **more: say([str(message)])
    try:
        with clean():
            app(prog_name="ppmodels")
    except typer.Exit as ended:  # by an error outside of all commands
        sys.exit(ended.exit_code)
