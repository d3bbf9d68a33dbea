"""`sample`, `reconstruct` and `complete`: pictures of what a run has learnt."""

from pathlib import Path

from ppmodels.app.canvases import growing_reconstructions, growing_samples
from ppmodels.app.computing import computing
from ppmodels.app.experiment import restored
from ppmodels.app.imputation import imputations
from ppmodels.app.pictures import Pictures, completions, latent_pictures, reconstructions, samples
from ppmodels.app.run import Run


def sample(
    run: Run,
    count: int | None = None,
    seed: int = 0,
    draws: bool = False,
    data: str | None = None,
    folder: str | Path | None = None,
    device: str = "auto",
    threads: int | None = None,
    progress: bool = True,
    trust: bool = False,
) -> Pictures:
    """Writes samples.png of a run: means of p(x | z) at z from the prior, or draws of x; of a table samples.csv too.

    More than 1,000 are drawn as they are written: of images to samples.npy, as float32 in levels. Of DRAW canvases.png
    too: how these grow, with the windows.
    """
    experiment = restored(run, data, folder, device, trust)
    with computing(experiment, threads, progress):
        pictures = samples(experiment, count, seed, draws) | growing_samples(experiment, seed)
        pictures.write(run.folder)  # draws what is not drawn yet
    return pictures


def reconstruct(
    run: Run,
    data: str | None = None,
    folder: str | Path | None = None,
    device: str = "auto",
    seed: int = 0,
    threads: int | None = None,
    progress: bool = True,
    trust: bool = False,
) -> Pictures:
    """Writes reconstructions.png of a run and, where it has one vector of latents, traversal.png and interpolation.png.

    Of DRAW reading.png too: what is read, and how the canvas grows, with the windows. Of a table with missing cells
    imputed.csv alone: the test rows with the means of what is missing.
    """
    experiment = restored(run, data, folder, device, trust)
    with computing(experiment, threads, progress):
        if experiment.data.test.observed is not None:
            pictures = imputations(experiment, seed)
            pictures.write(run.folder)
            return pictures
        pictures = reconstructions(experiment, seed) | latent_pictures(experiment, seed)
        pictures |= growing_reconstructions(experiment, seed)
    pictures.write(run.folder)
    return pictures


def complete(
    run: Run,
    given: float = 0.5,
    data: str | None = None,
    folder: str | Path | None = None,
    device: str = "auto",
    seed: int = 0,
    threads: int | None = None,
    progress: bool = True,
    trust: bool = False,
) -> Pictures:
    """Writes completions.png of a run: test images of which the first rows are given, a fraction, and several endings."""
    if not 0 <= given < 1:
        raise ValueError(f"given: expected a fraction of the rows, at least 0 and below 1, got {given}")
    experiment = restored(run, data, folder, device, trust)
    with computing(experiment, threads, progress):
        pictures = completions(experiment, seed, given)
    pictures.write(run.folder)
    return pictures
