"""A study of runs that exist: their protocol, read from their records, and the report of what is measured of them."""

import json
import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from ppmodels.app.experiment import Experiment, chosen_rows, restored
from ppmodels.app.run import Run, versions
from ppmodels.app.settings import written
from ppmodels.app.study import folder
from ppmodels.app.study.measure import measure, measure_real
from ppmodels.app.study.protocol import LIMIT, Protocol, StudyData, StudyModel
from ppmodels.app.study.report import Report, write_report
from ppmodels.app.trust import approved

COMMAND = "ppmodels compare"


@dataclass(frozen=True)
class Member:
    """A run with its place in a study."""

    run: Run
    model: StudyModel

    @property
    def seed(self) -> int:
        """That it was trained with."""
        return int(self.run.record["seed"])


def report_of_runs(
    runs: Sequence[Run],
    out: Path,
    limit: int | None = None,
    device: str = "auto",
    threads: int = 1,
    told: Callable[[str], None] = lambda line: None,
) -> Report:
    """Measures runs of the same data and writes their report into a folder, where links lead to the runs.

    Raises ValueError for runs of different data, before anything is measured, and for a folder that holds something else.
    """
    runs = _once_each(runs)
    approved(runs)
    _refuse_other_data(runs)
    with folder.claimed(out):
        _refuse_other_study(out, runs[0].record["data"]["fingerprint"])
        members = members_of(runs, [restored(run, device=device).recipe.family for run in runs])
        protocol = protocol_of(members, restored(runs[0], device=device), out, limit or LIMIT)
        _link(members, protocol, out)
        for number, member in enumerate(members, 1):
            told(f"measuring {member.run.folder}, {number} of {len(members)}")
            measure(protocol, out, member.model, member.seed, threads)
        measure_real(protocol, out)
        return write_report(out)


def protocol_of(members: Sequence[Member], experiment: Experiment, out: Path, limit: int) -> Protocol:
    """What a study of these runs would have fixed beforehand; `experiment` is of one of them, for its data."""
    data = experiment.data
    folders = shlex.join(str(member.run.folder) for member in members)
    return Protocol(
        data=StudyData.of(data),
        models=list({member.model.name: member.model for member in members}.values()),
        seeds=sorted({member.seed for member in members}),
        minutes=None,
        examples=chosen_rows(len(data.test), limit).tolist(),
        command=f"{COMMAND} {folders} --limit {limit} --out {shlex.quote(str(out))}",
        device=experiment.device.type,
        versions=versions(),
        folder=members[0].run.record["data"]["folder"],
        notes=[
            "These runs were there before the study, and each was trained as its own record says.",
            *(f"{member.model.name}, seed {member.seed}: {member.run.folder}" for member in members),
        ],
    )


def members_of(runs: Sequence[Run], families: Sequence[str]) -> list[Member]:
    """The runs as models with seeds: those that differ in their seed alone are one model.

    A name says the settings in which the models of a recipe differ; where that does not tell two apart, a number does.
    """
    alike: dict[str, list[tuple[Run, str]]] = {}
    for run, family in zip(runs, families, strict=True):
        alike.setdefault(_kind(run), []).append((run, family))
    groups = [group for same in alike.values() for group in _of_different_seeds(same)]
    records = [group[0][0].record for group in groups]
    told = [_told(record, records) for record in records]
    names = [" ".join([group[0][0].recipe_name, *each]) for group, each in zip(groups, told, strict=True)]
    members = []
    for place, (group, settings, name) in enumerate(zip(groups, told, names, strict=True)):
        first, family = group[0]
        model = StudyModel(
            name=name if names.count(name) == 1 else f"{name} {names[: place + 1].count(name)}",
            recipe=first.recipe_name,
            family=family,
            settings=settings,
            steps=int(first.record.get("steps", 0)),
            batch_size=int(first.record["training"].get("batch_size", 0)),
        )
        members += [Member(run, model) for run, _ in group]
    return members


def _kind(run: Run) -> str:
    """All of a record that makes a model: what it is, and how it was trained."""
    kept = ("recipe", "file", "recipe_sha256", "settings", "training")
    return json.dumps({name: run.record.get(name) for name in kept}, sort_keys=True)


def _of_different_seeds(runs: Sequence[tuple[Run, str]]) -> list[list[tuple[Run, str]]]:
    """Runs of one kind in as many groups as it takes for no seed to be in one twice."""
    groups: list[list[tuple[Run, str]]] = []
    for run in runs:
        free = (group for group in groups if all(other[0].record["seed"] != run[0].record["seed"] for other in group))
        group = next(free, None)
        if group is None:
            groups.append([run])
        else:
            group.append(run)
    return groups


def _told(record: Mapping[str, Any], records: Sequence[Mapping[str, Any]]) -> list[str]:
    """The settings in which a model differs from others of its recipe, as --set takes them."""
    same = [_settings(each) for each in records if (each["recipe"], each["file"]) == (record["recipe"], record["file"])]
    own = _settings(record)
    return [f"{name}={written(value)}" for name, value in own.items() if any(each.get(name) != value for each in same)]


def _settings(record: Mapping[str, Any]) -> dict[str, Any]:
    return {**record["settings"], **record["training"]}


def _once_each(runs: Sequence[Run]) -> list[Run]:
    """Every folder once, however often it is named."""
    return list({run.folder.resolve(): run for run in runs}.values())


def _refuse_other_data(runs: Sequence[Run]) -> None:
    for one, other in combinations(runs, 2):
        for name in ("fingerprint", "binarisation", "shape", "levels"):
            mine, theirs = (each.record["data"][name] for each in (one, other))
            if mine != theirs:
                raise ValueError(
                    f"{one.folder} and {other.folder} are of different data, whose numbers do not compare: {name} {mine} "
                    f"against {theirs}. Compare runs of the same data."
                )


def _refuse_other_study(out: Path, digest: str) -> None:
    """Raises ValueError where a folder holds a study that is no earlier comparison of runs of these data."""
    there = folder.plan_in(out)
    if there is None:
        return
    if not there.command.startswith(COMMAND):
        raise ValueError(f"--out {out} holds a study, whose report is {out / 'report.html'}; choose another folder.")
    if there.data.digest != digest:
        raise ValueError(f"--out {out} holds a comparison on other data, {there.data.name}; choose another folder.")


def _link(members: Sequence[Member], protocol: Protocol, out: Path) -> None:
    """Makes the folder of the study, without measurements of an earlier one of the same names."""
    folder.write_plan(out, protocol)
    for model in protocol.models:
        for seed in protocol.seeds:
            path = folder.measured(out, protocol, model, seed)
            for each in (path, path.with_suffix(".npz")):
                each.unlink(missing_ok=True)
    for member in members:
        path = out / protocol.run_of(member.model, member.seed)
        if path.is_symlink():
            path.unlink()
        path.symlink_to(os.path.relpath(member.run.folder.resolve(), path.parent.resolve()), target_is_directory=True)
