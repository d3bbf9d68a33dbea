"""What programs, recipes and calls from Python get wrong: refused by name, before anything is computed."""

import functools
from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import nn

from inference import (
    SVI,
    ImportanceWeighted,
    Pair,
    Rollback,
    Step,
    Traced,
    WakeSleep,
    adam,
    annealed,
    calibration,
    check,
    decode,
    diagnose,
    evaluate,
    exact,
    fit,
    importance,
    log_joint,
    posterior,
    posterior_predictive_check,
    predict,
    predictive,
    reconstruct,
    refined,
    renyi,
    sample,
    sandwich,
    simulated,
    terms,
    to_arviz,
)
from ppmodels.app import Recipe
from ppmodels.app import evaluate as evaluate_run
from ppmodels.app.run import Run
from ppmodels.data import InOrder, Shuffled, load
from tests.faults.case import Case, System
from tests.faults.given import replaced, text
from tests.faults.section import rows_of
from tests.faults.small import Small, beside_a_fit, fitted, kept, nan_rows, objects, rows, scored, step, validated

NAN, INFINITE = float("nan"), float("inf")
NO_COUNTS = (0, -1, 2.5, "10", None)
"""What is no whole number of at least 1."""


def of_a_recipe(name: str, value: object, told: str = "") -> Case:
    return Case(
        f"Recipe({name}={told or repr(value)})",
        lambda: Recipe(**{"program": Small, name: value}),
        1,
        (f"{name}: expected",),
    )


def counts(name: str, call: Callable[[Any], object], what: str, values: tuple[object, ...] = NO_COUNTS) -> list[Case]:
    return [
        Case(f"{what} {value!r}", functools.partial(call, value), 1, (name, "expected", repr(value)))
        for value in values
    ]


def of_a_setting(text: str, *holds: str) -> Case:
    return Case(f"train {text}", f"train vae {text} --out new", 1, holds)


def wrong(
    recipe: str,
    done: str,
    *holds: str,
    command: str = "train my_model.py --out new",
    code: int = 1,
    old: str = "program=Columns,",
) -> Case:
    """A recipe file with another text in the place of one."""
    return Case(done, command, code, holds, replaced("my_model.py", old, recipe))


def a_pair_without_a_plate() -> Pair:
    def model(x: torch.Tensor) -> None:
        mean = pyro.param("mean", torch.zeros(2))
        pyro.sample("x", dist.Normal(mean, 1.0).to_event(1), obs=x)

    return Pair(model)


CASES = (
    # Recipes
    of_a_recipe("program", 3),
    of_a_recipe("program", None),
    of_a_recipe("program", "vae"),
    of_a_recipe("steps", "100"),
    of_a_recipe("steps", 1.5),
    of_a_recipe("steps", 0),
    of_a_recipe("steps", True),
    of_a_recipe("batch_size", 16.0),
    of_a_recipe("batch_size", -1),
    of_a_recipe("batch_size", None),
    of_a_recipe("average", "x"),
    of_a_recipe("average", 1.0),
    of_a_recipe("average", -0.1),
    of_a_recipe("average", NAN),
    of_a_recipe("clip", -1),
    of_a_recipe("clip", 0),
    of_a_recipe("clip", NAN),
    of_a_recipe("clip", "1"),
    of_a_recipe("estimators", 3),
    of_a_recipe("estimators", None),
    of_a_recipe("estimators", {"iwae": 3}),
    of_a_recipe("estimators", {3: importance(2)}, "by number"),
    of_a_recipe("estimators", [importance(2)], "a list"),
    of_a_recipe("objective", None),
    of_a_recipe("objective", "SVI"),
    of_a_recipe("optimizer", torch.optim.Adam, "torch.optim.Adam"),
    of_a_recipe("optimizer", None),
    of_a_recipe("optimizer", "adam"),
    of_a_recipe("optimizer", adam(1e-3), "adam(1e-3)"),
    of_a_recipe("optimizer", lambda rate: None, "gives None"),
    of_a_recipe("optimizer", lambda rate: 3, "gives a number"),
    of_a_recipe("optimizer", lambda: adam(), "takes nothing"),
    of_a_recipe("learning_rate", NAN),
    of_a_recipe("learning_rate", INFINITE),
    of_a_recipe("learning_rate", "0.1"),
    of_a_recipe("schedule", 0.5),
    of_a_recipe("schedule", lambda: 1.0, "takes nothing"),
    of_a_recipe("schedule", lambda fraction: "1", "gives a text"),
    of_a_recipe("schedule", lambda fraction: NAN, "gives NaN"),
    of_a_recipe("traced", True),
    of_a_recipe("traced", Traced(), "Traced()"),
    of_a_recipe("labelled", "yes"),
    of_a_recipe("labelled", 1),
    of_a_recipe("validate_every", 0),
    of_a_recipe("validate_every", 2.0),
    of_a_recipe("patience", 0),
    of_a_recipe("progression", -1),
    of_a_recipe("presets", 3),
    of_a_recipe("presets", ["grey"]),
    of_a_recipe("settings", [1]),
    of_a_recipe("settings", None),
    of_a_recipe("data", None),
    of_a_recipe("data", 3),
    of_a_recipe("binarisation", "sometimes"),
    of_a_recipe("binarisation", None),
    of_a_recipe("standardise", "yes"),
    of_a_recipe("family", None),
    of_a_recipe("summary", 3),
    Case("a recipe of settings that its program has not", lambda: Recipe(program=Small, settings={"latnt": 3}), 1, ("'latnt' is no setting",)),
    Case("a recipe of patience without validation", lambda: Recipe(program=Small, patience=3, validate_every=None), 1, ("patience: early stopping needs scores", "validate_every")),
    Case("a recipe file without a recipe", "train r.py", 1, ("r.py", "expected it to define", "recipe = Recipe(program=…)"), text("r.py", "x = 3\n")),
    Case("a recipe file whose recipe is a number", "train r.py", 1, ("r.py", "got a int"), text("r.py", "recipe = 3\n")),
    Case("a recipe file of a binary", "train r.py", 1, ("r.py",), text("r.py", b"\x00\xff\xfe")),
    Case("a recipe file of a mistake in its syntax", "train r.py", 1, ("r.py", "line 2"), text("r.py", "x = 3\nrecipe = Recipe(\n")),
    Case("a recipe file that imports what is not there", "train r.py", 1, ("r.py", "nosuchmodule"), text("r.py", "import nosuchmodule\n")),
    Case("a recipe file that imports a file beside it", "train r.py", 1, ("r.py imports mine", "install it as a package"), lambda folder: [text("r.py", "import mine\n")(folder), text("mine.py", "x = 3\n")(folder)]),
    Case("a recipe file that exits", "train r.py", 1, ("r.py", "SystemExit"), text("r.py", "raise SystemExit(0)\n")),
    # The command line
    of_a_setting("--lr nan", "learning_rate: expected"),
    of_a_setting("--lr inf", "learning_rate: expected"),
    of_a_setting("--lr 0", "learning_rate: expected"),
    of_a_setting("--lr -1", "learning_rate: expected"),
    of_a_setting("--lr 1e308 --steps 5", "finite numbers", "Lower the learning rate"),
    of_a_setting("--set clip=-1", "clip: expected"),
    of_a_setting("--set clip=nan", "clip: expected"),
    of_a_setting("--set average=1", "average: expected"),
    of_a_setting("--set patience=0", "patience: expected"),
    of_a_setting("--set steps=1.5", "steps: expected a whole number"),
    of_a_setting("--set steps=１００", "steps: expected a whole number"),
    of_a_setting("--set latent=1_0", "latent: expected a whole number"),
    of_a_setting("--set latent=99999999999999999999", "latent: expected a whole number"),
    of_a_setting("--set latent=1000000000", "memory"),
    of_a_setting("--set hidden=1000000,1000000", "memory"),
    of_a_setting("--set latent", "expected name=value"),
    of_a_setting("--set =3", "no setting"),
    Case("train on batches larger than the data", "train vae --batch-size 100000000 --steps 1 --out new", 0, ("a batch has all 1437 examples",)),
    Case("evaluate with more particles than memory", "evaluate digits --particles 100000000000000000000 --limit 1", 1, ("particles",)),
    Case("evaluate with an estimator of 0", "evaluate digits --estimators iwae:0", 1, ("particles: expected a whole number of at least 1",)),
    Case("evaluate with an estimator of 10^30", f"evaluate digits --estimators iwae:{10**30} --limit 1", 1, ("particles: expected",)),
    Case("evaluate with an estimator of a text", "evaluate digits --estimators iwae:ten", 1, ("'iwae:ten'", "expected a number")),
    Case("evaluate with one temperature", "evaluate digits --estimators annealed:1", 1, ("temperatures: expected a whole number of at least 2",)),
    Case("diagnose with 21 draws", "diagnose digits --draws 21 --refine 0", 2, ("--draws",)),
    Case("calibrate with 19 simulations", "calibrate digits --simulations 19", 2, ("--simulations",)),
    Case("sample none", "sample digits --count 0", 2, ("--count",)),
    Case("complete by a VAE", "complete digits", 1, ("no completions", "latent variables")),
    Case("threads of 0", "evaluate digits --threads 0", 2, ("--threads",)),
    Case("a seed of 10^30 in an evaluation", f"evaluate digits --seed {10**30} --limit 2", 1, ("seed: expected",)),
    Case("threads of 10^9", "evaluate digits --threads 1000000000 --limit 2", 1, ("threads", "expected")),
    Case("a seed of 10^30", f"sample digits --seed {10**30}", 0, ("wrote",), changes=("digits/*",)),
    Case("an unknown command", "trian vae", 2, ("trian",)),
    # Programs of one's own
    wrong("program=lambda data: None,", "a program that is None", "recipe's program gave a NoneType", "nn.Module"),
    wrong("program=lambda data: 3,", "a program that is a number", "recipe's program gave a int"),
    wrong("program=lambda data: torch.nn.Linear(2, 2),", "a program without a model", "model"),
    wrong("program=Columns, objective=lambda program: None,", "an objective that gives None", "recipe's objective gave a NoneType"),
    wrong("program=Columns, optimizer=lambda rate: (lambda parameters: None),", "an optimizer that is None", "optimizer", "NoneType"),
    wrong("program=Columns, schedule=lambda fraction: float('nan') if fraction > 0.5 else 1.0,", "a schedule of NaN at the last step", "learning_rate: expected a finite number", "nan", "step 2"),
    wrong("program=Columns, optimizer=lambda rate: (lambda parameters: torch.optim.SGD(parameters, lr=float('nan'))),", "SGD of a NaN", "finite", "learning rates [nan]"),
    Case("a program with a state that is no tensor", "train my_model.py --out new", 0, ("_extra_state", "not saved"), replaced("my_model.py", "    def model(self, x):", "    def get_extra_state(self):\n        return {'a': 3}\n\n    def set_extra_state(self, state):\n        pass\n\n    def model(self, x):")),
    Case("pictures that fail by an assertion", "train my_model.py --out new", 0, ("no samples",), replaced("my_model.py", "    def model(self, x):\n", "    def model(self, x):\n        assert len(x) < 100, 'mine'\n")),
    # Numbers of calls
    *counts("particles", importance, "importance of"),
    *counts("temperatures", annealed, "annealed of", (1, "10", 2.5, None)),
    *counts("chains", lambda value: annealed(10, chains=value), "annealed with chains of"),
    *counts("leapfrog", lambda value: annealed(10, leapfrog=value), "annealed with leapfrog steps of", (0, 2.5, "3")),
    *counts("start", lambda value: annealed(10, start=value), "annealed with a start of", ("nowhere", 3)),
    *counts("simulations", lambda value: sandwich(10, simulations=value), "sandwich with simulations of", (0, 2.5, "3")),
    *counts("steps", refined, "refined of", (0, 2.5, "10")),
    *counts("learning_rate", lambda value: refined(learning_rate=value), "refined with a rate of", (NAN, -1.0, "3")),
    *counts("draws", predictive, "predictive of", (0, 2.5, "10")),
    *counts("alpha", renyi, "renyi of", (NAN, "x", None)),
    *counts("particles", lambda value: terms(Small(), rows(), value), "terms of particles"),
    *counts("particles", lambda value: SVI(Small(), particles=value), "SVI of particles", (0, 2.5, "3")),
    *counts("particles", lambda value: ImportanceWeighted(Small(), particles=value), "ImportanceWeighted of particles", (0, 2.5, "3")),
    *counts("particles", lambda value: WakeSleep(Small(), particles=value), "WakeSleep of particles", (0, 2.5, "3")),
    *counts("draws", lambda value: posterior(Small(), rows(), value), "posterior of draws", (0, 2.5, "3")),
    *counts("draws", lambda value: predict(Small(), rows(), value), "predict of draws", (0, 2.5, "3")),
    *counts("draws", lambda value: reconstruct(Small(), rows(), value), "reconstruct of draws", (0, 2.5, "3")),
    *counts("draws", lambda value: sample(Small(), rows(), value), "sample of draws", (0, 2.5, "3")),
    *counts("draws", lambda value: diagnose(Small(), rows(), value), "diagnose of draws", (0, 2.5, "30")),
    *counts("draws", lambda value: to_arviz(Small(), rows(), value), "to_arviz of draws", (0, 2.5, "30")),
    *counts("draws", lambda value: calibration(Small(), rows(), 20, value), "calibration of draws", (0, 2.5, "30")),
    *counts("simulations", lambda value: calibration(Small(), rows(), value), "calibration of simulations", (0, 2.5, "30")),
    *counts("level", lambda value: calibration(Small(), rows(), 20, 9, level=value), "calibration at a level of", (0, 1.5, "x")),
    *counts("draws", lambda value: posterior_predictive_check(Small(), rows(), {"mean": torch.mean}, value), "posterior_predictive_check of draws", (0, 2.5, "3")),
    *counts("steps", fitted, "fit of steps", (-1, 2.5, "3", None)),
    *counts("record_every", lambda value: fitted(2, record_every=value), "fit with record_every of", (0, -1, 2.5, "3")),
    *counts("every", lambda value: validated(every=value), "Validation of every", (0, -1, 2.5, "3")),
    *counts("patience", lambda value: validated(patience=value), "Validation of patience", (0, -1, 2.5, "3")),
    *counts("every", lambda value: kept("kept", every=value), "Checkpoint of every", (0, "soon", "5 weeks", None)),
    *counts("keep", lambda value: kept("kept", keep=value), "Checkpoint of keep", (0, 2.5, "3")),
    *counts("times", lambda value: Rollback(value), "Rollback of times", (0, 2.5, "3")),
    *counts("clip", lambda value: step(clip=value), "Step of clip", (0, -1, NAN, "3")),
    *counts("average", lambda value: step(average=value), "Step of average", (1.0, -1, NAN, "3")),
    *counts("learning_rate", lambda value: step(learning_rate=value), "Step of learning_rate", (0.1, "x")),
    *counts("seed", lambda value: step(seed=value), "Step of seed", (2.5, "3", None)),
    *counts("seed", lambda value: scored(seed=value), "evaluate of seed", (2.5, "3", None)),
    *counts("batch_size", lambda value: Shuffled(load("ring-8"), batch_size=value), "Shuffled of batch_size", (0, 2.5, "3")),
    *counts("batch_size", lambda value: InOrder(load("ring-8"), "test", value), "InOrder of batch_size", (0, 2.5, "3")),
    *counts("split", lambda value: InOrder(load("ring-8"), value, 10), "InOrder of split", ("tset", 3)),
    # Data of calls
    Case("fit of a batch with NaN", lambda: fitted(batches=nan_rows()), 1, ("x", "finite")),
    Case("fit of a later batch with NaN", lambda: fitted(batches=[rows(), nan_rows()]), 1, ("finite",)),
    Case("evaluate of a batch with NaN", lambda: scored(nan_rows()), 1, ("finite",)),
    Case("evaluate of a later batch with NaN", lambda: scored([rows(), nan_rows()]), 1, ("finite",)),
    Case("fit of no batches", lambda: fitted(batches=[]), 1, ("no batches", "empty")),
    Case("fit of an iterator that is used up", lambda: fitted(batches=iter([])), 1, ("used up",)),
    Case("fit of None", lambda: fit(step(), None, 3, progress=False), 1, ("no tensor",)),
    Case("fit of a number", lambda: fit(step(), 3, 3, progress=False), 1, ("batches: expected",)),
    Case("fit of a text", lambda: fit(step(), "mnist", 3, progress=False), 1, ("batch", "str")),
    Case("fit of objects", lambda: fitted(batches=objects()), 1, ("array of object",)),
    Case("fit of float64", lambda: fitted(batches=rows().double()), 0, ()),
    Case("fit of whole numbers", lambda: fitted(batches=torch.ones(8, 2, dtype=torch.long)), 0, ()),
    Case("fit of no rows", lambda: fitted(batches=torch.zeros(0, 2)), 1, ("at least one example",)),
    Case("fit of a scalar", lambda: fitted(batches=torch.tensor(3.0)), 1, ("first axis",)),
    Case("fit of entries of other lengths", lambda: fitted(batches=(rows(8), rows(7))), 1, ("share a first axis",)),
    Case("fit under no_grad", lambda: torch.no_grad()(fitted)(), 1, ("no_grad",)),
    Case("fit under inference_mode", lambda: torch.inference_mode()(fitted)(), 1, ("inference_mode",)),
    Case("an empty validation", lambda: validated(batches=[]), 1, ("the validation", "no batches")),
    Case("a validation of a number", lambda: validated(batches=3), 1, ("expected",)),
    Case("a validation of an iterator", lambda: validated(batches=iter([rows()])), 1, ("validation", "iterator")),
    Case("evaluate by no estimator", lambda: scored(estimators={"a": 3}), 1, ("a", "estimator")),
    Case("evaluate by an estimator without a name", lambda: evaluate(Small(), rows(), importance(2)), 1, ("estimators", "expected")),
    Case("evaluate by no estimators at all", lambda: evaluate(Small(), rows(), {}), 1, ("estimators",)),
    Case("exact of a continuous latent", lambda: scored(estimators={"exact": exact()}), 1, ("z", "finite support")),
    Case("calibration of a list of batches", lambda: calibration(Small(), [rows(), rows()], 20, 9), 1, ("the batch's 2 entries", "torch.cat")),
    Case("to_arviz of a list of batches", lambda: to_arviz(Small(), [rows(), rows()], 30), 1, ("the batch's 2 entries", "torch.cat")),
    Case("terms of a list of batches", lambda: terms(Small(), [rows(), rows()]), 1, ("the batch's 2 entries", "torch.cat")),
    Case("simulated of a list of batches", lambda: simulated(Small(), [rows(), rows()]), 1, ("the batch's 2 entries", "torch.cat")),
    Case("decode of latents of another name", lambda: decode(Small(), rows(), {"y": rows()}), 1, ("latents were given for ['y']", "Leave them out")),
    Case("log_joint without latents", lambda: log_joint(Small(), rows(), {}), 1, ("z",)),
    Case("log_joint of a latent of another shape", lambda: log_joint(Small(), rows(), {"z": torch.zeros(1, 8, 3)}), 1, ("z",)),
    # Steps
    Case("an optimizer of Pyro", lambda: fitted(taken=step(optimizer=pyro.optim.Adam({"lr": 0.1}))), 1, ("optimizer", "adam")),
    Case("an optimizer that is made", lambda: fitted(taken=Step(SVI(small := Small()), torch.optim.Adam(small.parameters()))), 1, ("optimizer", "made already", "pass adam(")),
    Case("an optimizer that is a class", lambda: fitted(taken=step(optimizer=torch.optim.SGD)), 0, ()),
    Case("an optimizer of another player", lambda: fitted(taken=step(optimizer={"critic": adam()})), 1, ("optimizer",)),
    Case("adam of NaN", lambda: fitted(taken=step(optimizer=adam(NAN))), 1, ("lr", "nan")),
    Case("an objective that is a program", lambda: Step(Small()), 1, ("objective", "SVI")),
    Case("a program that is a class", lambda: fitted(taken=Step(SVI(Small))), 1, ("nn.Module", "type")),
    Case("a program without a guide", lambda: fitted(taken=Step(SVI(nn.Linear(2, 2)))), 1, ("model", "guide")),
    Case("a program without parameters", lambda: fitted(taken=Step(SVI(Pair(lambda x: pyro.sample("x", dist.Normal(0.0, 1.0).expand([8, 2]).to_event(2), obs=x))))), 1, ("parameters",)),
    Case("check of a program that observes nothing", lambda: check(Pair(lambda x: None), rows()), 1, ("observes no site",)),
    Case("a callback that is no function", lambda: fitted(callbacks=[3]), 1, ("callbacks",)),
    Case("metrics below a file", lambda: fitted(metrics="table.csv/m.jsonl"), 2, ("table.csv",)),
    Case("metrics in a folder that is not there", lambda: fitted(metrics="nowhere/m.jsonl"), 2, ("nowhere",)),
    Case("a checkpoint below a file", lambda: kept("table.csv/kept"), 2, ("table.csv",)),
    Case("a checkpoint of an empty name", lambda: kept(""), 1, ("folder: expected",)),
    # Threads
    Case("a fit beside a fit", lambda: beside_a_fit(fitted), 1, ("fit", "another thread", "one at a time")),
    Case("an evaluation beside a fit", lambda: beside_a_fit(scored), 1, ("evaluate", "another thread", "one at a time")),
    Case("terms beside a fit", lambda: beside_a_fit(lambda: terms(Small(), rows())), 1, ("another thread", "one at a time")),
    Case("a step beside a fit", lambda: beside_a_fit(lambda: step()(rows())), 1, ("another thread", "one at a time")),
    Case("sample beside a fit", lambda: beside_a_fit(lambda: sample(Small(), rows())), 1, ("another thread", "one at a time")),
    Case("the evaluation of a run beside a fit", lambda: beside_a_fit(lambda: evaluate_run(Run.open("run"), progress=False)), 1, ("another thread", "one at a time")),
    Case("a fit after a fit", lambda: (fitted(), fitted(), scored()), 0, ()),
    # What is large
    Case("20,000 samples of a VAE", "sample digits --count 20000", 0, ("wrote",), system=System(memory=700), changes=("digits/*",)),
    Case("100,000 samples of a table", "sample run --count 100000", 0, ("wrote",), system=System(memory=700), changes=("run/*",)),
    Case("more samples than can be shown", "sample digits --count 1000001", 2, ("--count",)),
    Case("a tensor larger than memory in training", "train my_model.py --out new", 1, ("memory",), replaced("my_model.py", "torch.zeros(data.shape)", "torch.zeros(10**6, 10**6, 3)")),
    Case("memory that runs out in a step", "train my_model.py --out new", 1, ("memory",), replaced("my_model.py", "    def guide(self, x):\n", "    def guide(self, x):\n        self.mean.new_zeros(10**7, 10**6)\n")),
    Case("memory of Python that runs out", "train my_model.py --out new", 1, ("memory",), replaced("my_model.py", "    def guide(self, x):\n", "    def guide(self, x):\n        bytearray(10**15)\n")),
)  # fmt: skip

test_programs = rows_of("programs", __name__, CASES)
