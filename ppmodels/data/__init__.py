"""Data: one resident tensor per split, batches as indices into it, and what a number was measured on.

Images are uint8 levels `(n, channel, height, width)`, tables are float32 `(n, features)`, standardised:

    data = load("digits")                                  # embedded; see NAMES
    data = load("mnist", folder="…").binarized("dynamic")
    data = load("people.csv", reading=Reading(columns=("-id",)))  # a file of your own
    batches = Shuffled(data, batch_size=128)               # batches(step) -> (x,), x float32 level values
    for (x,) in InOrder(data, "test", 500): ...
"""

from ppmodels.data.batches import InOrder, Shuffled
from ppmodels.data.dataset import Dataset, Split
from ppmodels.data.reading import Reading
from ppmodels.data.sources import NAMES, load
from ppmodels.data.standardisation import Standardisation

__all__ = ["NAMES", "Dataset", "InOrder", "Reading", "Shuffled", "Split", "Standardisation", "load"]
