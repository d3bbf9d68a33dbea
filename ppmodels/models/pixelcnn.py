"""Masked convolutions over pixels: PixelCNN and the gated PixelCNN."""

from collections.abc import Sequence

from ppmodels.nn.causal import AutoregressiveModel, GatedLayers, Mask, MaskedConv, ReLU, Residual, Sequential, read_out
from ppmodels.nn.heads import Head


class PixelCNN(AutoregressiveModel):
    """Masked convolutions in residual blocks (van den Oord et al., 2016, arXiv 1601.06759); see AutoregressiveModel.

    A 7×7 convolution that hides the pixel itself, then `layers` blocks of 3×3, of `features` maps (half as many inside a
    block). It has a blind spot: stacked masks never reach some pixels above and to the right, however many layers there are.
    """

    def __init__(
        self,
        shape: Sequence[int] = (1, 28, 28),
        levels: int = 2,
        features: int = 32,
        layers: int = 7,
        context: int | Sequence[int] = 0,
        classes: int = 0,
        likelihood: Head | str | None = None,
    ) -> None:
        super().__init__(shape, levels, context, classes, likelihood)
        channels, inner = self.ordered, features // 2
        blocks = [
            Residual(
                ReLU(),
                MaskedConv(features, inner, 1, Mask.B, channels),
                ReLU(),
                MaskedConv(inner, inner, 3, Mask.B, channels, context=self.maps),
                ReLU(),
                MaskedConv(inner, features, 1, Mask.B, channels),
            )
            for _ in range(layers)
        ]
        self.network = Sequential(
            MaskedConv(self.shape[0], features, 7, Mask.A, channels, context=self.maps),
            *blocks,
            *read_out(features, self.outputs, channels),
        )


class GatedPixelCNN(AutoregressiveModel):
    """Gated convolutions in a vertical and a horizontal stack (van den Oord et al., 2016, arXiv 1606.05328).

    A layer of kernel 7 that hides the pixel itself, then `layers` layers of `kernel`, of `features` maps in each stack. It
    has no blind spot: with enough layers every pixel before is seen, 3 + layers · (kernel // 2) rows up and columns aside.
    """

    def __init__(
        self,
        shape: Sequence[int] = (1, 28, 28),
        levels: int = 2,
        features: int = 32,
        layers: int = 5,
        kernel: int = 3,
        context: int | Sequence[int] = 0,
        classes: int = 0,
        likelihood: Head | str | None = None,
    ) -> None:
        super().__init__(shape, levels, context, classes, likelihood)
        self.network = Sequential(
            GatedLayers(self.shape[0], features, layers, 7, kernel, self.ordered, self.maps),
            *read_out(features, self.outputs, self.ordered),
        )
