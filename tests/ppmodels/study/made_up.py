"""Measurements with numbers that nobody measured, of a study that nobody ran: for what is made of numbers."""

import dataclasses
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from inference.training.files import write_whole
from ppmodels.app.study.groups import ADVERSARIAL, AUTOREGRESSIVE, VARIATIONAL
from ppmodels.app.study.measurement import (
    FAILED,
    FINISHED,
    NO_LATENTS,
    Codes,
    Curve,
    LogLikelihood,
    Measurement,
    Missing,
    Number,
    Posterior,
    Samples,
    Sampling,
    Sharpness,
    Training,
    TwoSample,
)
from ppmodels.app.study.protocol import Protocol, StudyData, StudyModel

FAMILIES = {"vae": VARIATIONAL, "gan": ADVERSARIAL, "pixelcnn": AUTOREGRESSIVE, "flow": "flows"}
EXAMPLES = 60


def around(value: float, error: float = 0.01) -> Number:
    return Number(value, value - 1.96 * error, value + 1.96 * error)


def scores(mean: float, seed: int, between: float = 0.2, name: str = "") -> list[float]:
    """Of examples that are hard or easy for all models, with a shift of the seed's own."""
    hardness = np.random.default_rng(1).normal(0.0, 4.0, EXAMPLES)
    own = np.random.default_rng([seed, *name.encode()])
    return (mean + hardness + own.normal(0.0, 0.5, EXAMPLES) + between * own.normal()).tolist()


def likelihood(
    mean: float, seed: int, kind: str = "exact", gap: Number | None = None, name: str = "", **changed: Any
) -> LogLikelihood:
    per_example = scores(mean, seed, name=name)
    found = LogLikelihood(
        kind=kind,
        estimator="exact" if kind == "exact" else "iwae, K = 1000",
        nats=float(np.mean(per_example)),
        standard_error=float(np.std(per_example) / EXAMPLES**0.5),
        bits_per_dim=float(-np.mean(per_example) / 64 / np.log(2)),
        per_example=per_example,
        gap=gap,
        note="",
    )
    return dataclasses.replace(found, **changed)


def samples(kid: float = 0.02, gradient: float | None = 0.0, means: float | None = None) -> Samples:
    def sharp(value: float | None) -> Sharpness | Missing:
        return (
            Missing("draws of binary pixels say nothing") if value is None else Sharpness(around(value), around(value))
        )

    return Samples(
        samples=180,
        reference="180 of the test split",
        features="a classifier of 64 features, trained on the training split",
        kid=around(kid, 0.002),
        mmd=TwoSample(around(0.01, 0.003), 0.012),
        classifier=TwoSample(around(0.62), 0.0002),
        detectable=0.58,
        precision=around(0.91),
        recall=around(0.85),
        density=around(0.97),
        coverage=around(0.93),
        memorisation=around(0.51),
        sharpness=sharp(gradient),
        sharpness_of_means=Missing("no means: the program has no latents") if means is None else sharp(means),
    )


def run(model: str, seed: int = 0, /, **changed: Any) -> Measurement:
    """A finished run of a model, such as one would hope for."""
    family = FAMILIES.get(model.split()[0], "")
    exact = family not in (VARIATIONAL, ADVERSARIAL)
    mean = {VARIATIONAL: -24.0, ADVERSARIAL: -60.0, AUTOREGRESSIVE: -20.0}.get(family, -22.0)
    kinds: dict[str, Any] = {} if exact else {"kind": "lower bound in expectation", "gap": around(0.4, 0.05)}
    if family == ADVERSARIAL:
        kinds["note"] = "of the generator with normal observation noise of 0.9, fitted on the valid split"
    own = np.random.default_rng([seed, *model.encode()])
    kid = {VARIATIONAL: 0.05, ADVERSARIAL: 0.03}.get(family, 0.02) + 0.002 * own.normal()
    steps = list(range(0, 1000, 50))
    fall = [float(60 * np.exp(-step / 200) + 20 + own.normal()) for step in steps]
    no_latents = Missing(NO_LATENTS)
    made = Measurement(
        model=model,
        family=family,
        seed=seed,
        run=f"runs/{model.replace(' ', '-')}-{seed}",
        status=FINISHED,
        reason="",
        seconds=4.2,
        training=Training(
            1000,
            31.5,
            54_321,
            {"generator": Curve(steps, fall), "critic": Curve(steps, fall[::-1])}
            if family == ADVERSARIAL
            else {"loss": Curve(steps, fall)},
            None if family == ADVERSARIAL else Curve(steps, [-each for each in fall]),
        ),
        log_likelihood=likelihood(mean, seed, name=model, **kinds),
        samples=samples(
            float(kid),
            {VARIATIONAL: -0.4, ADVERSARIAL: 0.02}.get(family, 0.15),
            -0.5 if family == VARIATIONAL else None,
        ),
        sampling=Sampling(0.03, 0.002, 64) if exact else Sampling(0.0005, 0.00002, 1),
        codes=Codes(around(0.9), around(0.95), 16) if family == VARIATIONAL else no_latents,
        posterior=Posterior(0.03, around(0.6, 0.1), Number(0.4, 0.4, 0.4), "200 simulations, 17 statistics")
        if family == VARIATIONAL
        else Missing("a program without latents has no posterior"),
    )
    return dataclasses.replace(made, **changed)


def failed(model: str, seed: int) -> Measurement:
    reason = Missing("the run failed")
    return run(
        model,
        seed,
        status=FAILED,
        reason="loss of the critic is nan at step 412",
        log_likelihood=reason,
        samples=reason,
        sampling=reason,
        codes=reason,
        posterior=reason,
    )


def study(
    models: Sequence[str] = ("vae", "gan", "pixelcnn"), seeds: Sequence[int] = (0, 1, 2), **changed: Any
) -> Protocol:
    data = StudyData("digits", "3fd6a1c2b0e9", [1, 8, 8], 17, "none", 10, 1437, 180, 180)
    made = Protocol(
        data=data,
        models=[
            StudyModel(name, name.split()[0], FAMILIES.get(name.split()[0], ""), name.split()[1:], 1000, 100)
            for name in models
        ],
        seeds=list(seeds),
        minutes=4.0,
        examples=list(range(EXAMPLES)),
        command="ppmodels study --data digits --seeds 3 --steps vae=1000,gan=1000,pixelcnn=1000",
        device="cpu",
        versions={"ppmodels": "0.1.0", "torch": "2.9.1"},
    )
    return dataclasses.replace(made, **changed)


def arrays(protocol: Protocol, model: str = "") -> dict[str, Any]:
    """Arrays of pictures that nobody drew."""
    own, shape = np.random.default_rng(len(model)), tuple(protocol.data.shape)
    top = (protocol.data.levels or 2) - 1

    def some(count: int) -> Any:
        drawn = own.uniform(0, top, (count, *shape)) if len(shape) == 3 else own.normal(size=(count, *shape))
        return drawn.astype(np.float32)

    found = {"samples": some(64)}
    if model:
        found["nearest"] = some(16)
    if model.startswith("vae") and len(shape) == 3:
        found |= {"originals": some(16), "reconstructions": some(16), "interpolation": some(48).reshape(6, 8, *shape)}
    if model.startswith("pixelcnn") and len(shape) == 3:
        found |= {"originals": some(16), "completions": some(16)}
    return found


def written(out: Path, protocol: Protocol, measurements: Sequence[Measurement], real: Samples | None = None) -> Path:
    """The folder of a study, as training and measuring leave it."""
    (out / "measured").mkdir(parents=True, exist_ok=True)
    write_whole(out / "study.json", protocol.as_json().encode())
    _write_arrays(out / "measured" / "data.npz", arrays(protocol))
    for each in measurements:
        name = Path(each.run).name
        write_whole(out / "measured" / f"{name}.json", each.as_json().encode())
        if each.status == FINISHED:
            _write_arrays(out / "measured" / f"{name}.npz", arrays(protocol, each.model))
    if real is not None:
        write_whole(out / "measured" / "real.json", json.dumps(dataclasses.asdict(real)).encode())
    return out


def _write_arrays(path: Path, found: Mapping[str, Any]) -> None:
    file = io.BytesIO()
    np.savez(file, **found)
    write_whole(path, file.getvalue())
