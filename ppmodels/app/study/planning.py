"""The plan of a study: from what is asked for to what is done, fixed before anything is trained."""

import json
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch

from inference.training.saved import differences
from ppmodels.app.experiment import chosen_rows, device_named, prepared
from ppmodels.app.lookup import find
from ppmodels.app.run import versions
from ppmodels.app.study.choices import Choice, choices_of, default_models
from ppmodels.app.study.experiments import digest_of
from ppmodels.app.study.folder import PLAN
from ppmodels.app.study.protocol import LIMIT, Protocol, StudyData, StudyModel
from ppmodels.data import Reading, load


@dataclass(frozen=True)
class Asked:
    """What is asked for."""

    models: Sequence[str] = ()
    """As `choices` reads them; by default one of each family."""
    data: str = "digits"
    folder: str | None = None
    binarisation: str = "none"
    reading: Reading = field(default_factory=Reading)
    seeds: int = 3
    minutes: float | None = None
    steps: Sequence[str] = ()
    """N for all models, or MODEL=N; by default those of the recipes."""
    limit: int = LIMIT
    device: str = "auto"


def planned(asked: Asked) -> Protocol:
    """The plan, with the steps that are given, else with those of the recipes. Every model is made once, for its data.

    Raises ValueError or FileNotFoundError for data that are not there, and for a model that does not fit them.
    """
    if asked.minutes is not None and asked.steps:
        raise ValueError("--minutes fixes the steps, and --steps gives them; give one of the two.")
    if asked.minutes is not None and not 0 < asked.minutes < math.inf:
        raise ValueError(f"--minutes: expected a positive and finite number, got {asked.minutes:g}")
    device = device_named(asked.device)
    data = load(asked.data, asked.folder, reading=asked.reading).binarized(asked.binarisation)
    names, notes = (asked.models, []) if asked.models else default_models(data)
    choices = choices_of(names)
    steps = steps_by_model(asked.steps, choices, asked.minutes)
    models = list[StudyModel]()
    for choice in choices:
        recipe = choice.found.recipe.with_settings({"steps": steps[choice.name]} if choice.name in steps else {})
        on_data = replace(recipe, data=asked.data, binarisation=asked.binarisation, reading=asked.reading)
        experiment = prepared(on_data, asked.folder, 0, device)
        models.append(
            StudyModel(
                choice.name,
                choice.recipe,
                recipe.family,
                choice.settings,
                experiment.recipe.steps,
                experiment.recipe.batch_size,
                digest_of(choice.found),
            )
        )
        notes += [f"{choice.name}: {note}" for note in (*_overruled(choice, asked), *experiment.notes)]
    return Protocol(
        data=StudyData.of(data, asked.data, json.loads(json.dumps(asdict(asked.reading)))),
        models=models,
        seeds=list(range(asked.seeds)),
        minutes=asked.minutes,
        examples=chosen_rows(len(data.test), asked.limit).tolist(),
        command="",
        device=torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        versions=versions(),
        folder=asked.folder,
        notes=notes,
    )


def steps_by_model(texts: Sequence[str], choices: Sequence[Choice], minutes: float | None) -> dict[str, int]:
    """The steps that are given, by the models' names. Raises ValueError for what names none, or gives them twice."""
    names = {each.text: each.name for each in choices} | {each.name: each.name for each in choices}
    set_before = {each.name for each in choices if each.sets_steps}
    if minutes is not None and set_before:
        raise ValueError(f"--minutes fixes the steps, and those of {min(set_before)} are set; give one of the two.")
    found: dict[str, int] = {}
    for text in texts:
        name, equals, number = text.rpartition("=")
        if not (number.isascii() and number.isdigit() and int(number) >= 1):
            raise ValueError(f"--steps {text}: expected N or MODEL=N, N a whole number of at least 1.")
        if equals and name not in names:
            raise ValueError(f"--steps {text}: {name!r} is none of the models: {', '.join(names.values())}.")
        for each in [names[name]] if equals else [each.name for each in choices]:
            if each in found or each in set_before:
                raise ValueError(f"--steps {text}: the steps of {each} are given twice; give them once.")
            found[each] = int(number)
    return found


def settled(protocol: Protocol, steps: Mapping[str, int], out: Path) -> Protocol:
    """The plan with these steps, by model, and the command that repeats it into a folder."""
    models = [replace(each, steps=steps.get(each.name, each.steps)) for each in protocol.models]
    found = replace(protocol, models=models)
    return replace(found, command=_command(found, out))


def continued(there: Protocol, here: Protocol, out: Path) -> Protocol:
    """The plan of the study that a folder holds, if it is what is asked for: with its own steps, where minutes are.

    Raises ValueError, naming what differs, where it is another one.
    """
    steps = {each.name: each.steps for each in there.models}
    before, now = (json.loads(each.as_json()) for each in (there, here))
    for each in (before, now):
        for name in ("command", "notes", *(["minutes"] if here.minutes is None else [])):
            del each[name]
        if here.minutes is not None:
            each["models"] = [{**model, "steps": None} for model in each["models"]]
    found = list(differences(before, now))
    if found:
        shown = "; ".join(found[:4]) + (f"; and {len(found) - 4} more" if len(found) > 4 else "")
        raise ValueError(
            f"{out} holds another study: {shown}. Ask for that one, whose command is in {out / PLAN}, to go on with it; "
            "choose another --out; or give --overwrite to replace it."
        )
    return settled(replace(here, minutes=there.minutes, notes=there.notes), steps, out)


def _overruled(choice: Choice, asked: Asked) -> list[str]:
    """Notes on how a recipe of the user's own would have read its data."""
    own = find(choice.recipe).recipe
    pairs = {
        "binarisation": (own.binarisation, asked.binarisation),
        "reading": (own.reading, asked.reading),
    }
    return [
        f"its own {name} gives way to the study's, {after}"
        for name, (before, after) in pairs.items()
        if choice.found.file is not None and before != after
    ]


def _command(protocol: Protocol, out: Path) -> str:
    data, reading = protocol.data, Reading.recorded(protocol.data.reading)
    header = {None: [], True: ["--header"], False: ["--no-header"]}[reading.header]
    options = {
        "--data": data.source,
        "--folder": protocol.folder,
        "--binarisation": None if data.binarisation in ("none", "published") else data.binarisation,
        "--columns": ",".join(reading.columns) or None,
        "--categories": ",".join(reading.categories) or None,
        "--levels": reading.levels,
        "--seeds": len(protocol.seeds),
        "--limit": len(protocol.examples) if len(protocol.examples) < data.test else max(LIMIT, data.test),
        "--device": "cpu" if protocol.device == "cpu" else "cuda",
        "--out": out,
    }
    given = [text for name, value in options.items() if value is not None for text in (name, str(value))]
    return shlex.join(["ppmodels", "study", *map(_text_of, protocol.models), *given, *header, *_steps(protocol)])


def _text_of(model: StudyModel) -> str:
    return model.recipe + (f":{','.join(model.settings)}" if model.settings else "")


def _steps(protocol: Protocol) -> list[str]:
    free = [each for each in protocol.models if not any(text.startswith("steps=") for text in each.settings)]
    if len(free) == len(protocol.models) and len({each.steps for each in free}) == 1:
        return ["--steps", str(free[0].steps)]
    return [text for each in free for text in ("--steps", f"{_text_of(each)}={each.steps}")]
