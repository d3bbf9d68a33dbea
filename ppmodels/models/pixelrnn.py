"""Recurrent networks over pixels: along the raster, by rows, and along the diagonals."""

from collections.abc import Sequence

from ppmodels.nn.causal import (
    AutoregressiveModel,
    Causal,
    DiagonalBiLSTMLayer,
    Mask,
    MaskedConv,
    RasterLSTM,
    Residual,
    RowLSTMLayer,
    Sequential,
    WrappedConv,
    read_out,
)
from ppmodels.nn.heads import Head


class CharRNN(AutoregressiveModel):
    """The image as one sequence of pixels through an LSTM, as a text is one of characters; see AutoregressiveModel.

    The one-dimensional baseline: the pixel above is a whole row of steps away.
    """

    def __init__(
        self,
        shape: Sequence[int] = (1, 28, 28),
        levels: int = 2,
        hidden: int = 128,
        layers: int = 1,
        context: int | Sequence[int] = 0,
        classes: int = 0,
        likelihood: Head | str | None = None,
    ) -> None:
        super().__init__(shape, levels, context, classes, likelihood)
        self.network = Sequential(
            RasterLSTM(self.shape[0], hidden, layers, self.ordered, self.maps),
            *read_out(hidden, self.outputs, self.ordered),
        )


class RowLSTM(AutoregressiveModel):
    """Row LSTMs with residual connections (van den Oord et al., 2016, arXiv 1601.06759); see AutoregressiveModel.

    A 7×7 convolution that hides the pixel itself, then `layers` layers of `hidden` units between maps of twice as many.
    Its context above a pixel is a triangle.
    """

    def __init__(
        self,
        shape: Sequence[int] = (1, 28, 28),
        levels: int = 2,
        hidden: int = 16,
        layers: int = 7,
        context: int | Sequence[int] = 0,
        classes: int = 0,
        likelihood: Head | str | None = None,
    ) -> None:
        super().__init__(shape, levels, context, classes, likelihood)
        recurrent = [RowLSTMLayer(2 * hidden, hidden, self.ordered, self.maps) for _ in range(layers)]
        self.network = _residual(self, _first(self, hidden), hidden, recurrent)


class DiagonalBiLSTM(AutoregressiveModel):
    """Diagonal BiLSTMs with residual connections (van den Oord et al., 2016, arXiv 1601.06759); see AutoregressiveModel.

    A 7×7 convolution that hides the pixel itself, then `layers` layers of `hidden` units a direction between maps of
    twice as many. One layer sees every pixel before: the last pixel of the row above, which in the paper's form
    only pixels near it see, is given to the first of the next row.
    """

    def __init__(
        self,
        shape: Sequence[int] = (1, 28, 28),
        levels: int = 2,
        hidden: int = 16,
        layers: int = 7,
        context: int | Sequence[int] = 0,
        classes: int = 0,
        likelihood: Head | str | None = None,
    ) -> None:
        super().__init__(shape, levels, context, classes, likelihood)
        _, height, width = self.shape
        recurrent = [
            DiagonalBiLSTMLayer(2 * hidden, hidden, (height, width), self.ordered, self.maps) for _ in range(layers)
        ]
        self.network = _residual(self, WrappedConv(_first(self, hidden)), hidden, recurrent)


def _first(model: AutoregressiveModel, hidden: int) -> MaskedConv:
    return MaskedConv(model.shape[0], 2 * hidden, 7, Mask.A, model.ordered, context=model.maps)


def _residual(model: AutoregressiveModel, first: Causal, hidden: int, recurrent: Sequence[Causal]) -> Sequential:
    """The paper's architecture around recurrent layers."""
    channels = model.ordered
    blocks = [Residual(layer, MaskedConv(hidden, 2 * hidden, 1, Mask.B, channels)) for layer in recurrent]
    return Sequential(first, *blocks, *read_out(2 * hidden, model.outputs, channels))
