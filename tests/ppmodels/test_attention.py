"""Windows: filters against loops, where they look at first, what reading and writing undo, and that they never die."""

import math

import pytest
import torch
from torch import Tensor

from ppmodels.nn.attention import ReadWindow, Window, WindowMap, WriteWindow, filters, read, write

SIZE = (9, 12)


def by_loop(centre: float, stride: float, variance: float, points: int, pixels: int) -> list[list[float]]:
    """The filters of the paper, one weight at a time."""
    rows = []
    for i in range(1, points + 1):
        mean = centre + (i - points / 2 - 0.5) * stride
        densities = [math.exp(-((a - mean) ** 2) / (2 * variance)) for a in range(1, pixels + 1)]
        rows.append([each / sum(densities) for each in densities])
    return rows


def random_windows(batch: int = 6) -> Window:
    uniform = torch.rand(5, batch, dtype=torch.float64)
    x, y, stride, variance, gain = uniform
    return Window(13 * x, 10 * y, 3 * stride, 0.5 + 4 * variance, 0.5 + gain)


@pytest.mark.parametrize("points", [1, 2, 5])
def test_filters_are_those_of_a_loop(points: int) -> None:
    window = random_windows()
    found = filters(window.x, window.stride, window.variance, points, 12)
    each = zip(window.x.tolist(), window.stride.tolist(), window.variance.tolist(), strict=True)
    expected = torch.tensor([by_loop(*numbers, points, 12) for numbers in each], dtype=torch.float64)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(found.sum(-1), torch.ones(6, points, dtype=torch.float64))


def test_reading_and_writing_are_sums_over_pixels() -> None:
    windows, window_map = random_windows(3), WindowMap(4, 3, SIZE, 1)
    rows, columns = window_map.filters(windows)
    images = torch.randn(3, 2, *SIZE, dtype=torch.float64)
    patches = torch.randn(3, 2, 3, 3, dtype=torch.float64)
    seen = torch.einsum("n,nih,njw,nchw->ncij", windows.gain, rows, columns, images)
    torch.testing.assert_close(read(windows, rows, columns, images), seen)
    painted = torch.einsum("n,nih,njw,ncij->nchw", 1 / windows.gain, rows, columns, patches)
    torch.testing.assert_close(write(windows, rows, columns, patches), painted)


def test_writing_what_was_read_by_sharp_filters_of_every_pixel_changes_nothing() -> None:
    side = 7
    window = Window(*(torch.tensor([value], dtype=torch.float64) for value in ((side + 1) / 2, 4.0, 1.0, 0.02, 3.0)))
    rows, columns = WindowMap(4, side, (side, side), 1).filters(window)
    images = torch.randn(1, 2, side, side, dtype=torch.float64)
    torch.testing.assert_close(write(window, rows, columns, read(window, rows, columns, images)), images)


@pytest.mark.parametrize("points", [2, 5])
def test_an_untrained_window_is_in_the_middle_and_sees_the_whole_image(points: int) -> None:
    window_map = WindowMap(4, points, (28, 28), 1)
    window = window_map(torch.randn(3, 4))
    torch.testing.assert_close(window.x, torch.full((3,), 14.5))
    torch.testing.assert_close(window.y, torch.full((3,), 14.5))
    torch.testing.assert_close(window.gain, window.stride)
    torch.testing.assert_close(window.variance.sqrt(), window.stride / 2)
    torch.testing.assert_close(window.stride * (points - 1), torch.full((3,), 0.75 * 27))
    rows, _ = window_map.filters(window)
    seen = rows.sum(1)
    assert (seen > 0.15 * seen.amax()).all(), "no pixel is missed, at the edges or between the filters"


def test_an_untrained_window_paints_and_reads_at_full_strength() -> None:
    """A patch of ones is painted as ones in the middle; what is read of independent pixels keeps their deviation."""
    h = torch.zeros(1, 4)
    writer = WriteWindow(4, 5, (1, 28, 28))
    window = writer.window(h)
    painted = write(window, *writer.window.filters(window), torch.ones(1, 1, 5, 5))
    assert painted[0, 0, 13:15, 13:15].mean().item() == pytest.approx(1, abs=0.1)
    reader = ReadWindow(4, 2, (1, 28, 28))
    generator = torch.Generator().manual_seed(0)
    seen = reader(h.expand(2000, 4), torch.randn(2000, 1, 28, 28, generator=generator))
    assert 0.4 < seen.std().item() < 1.5


@pytest.mark.parametrize("points", [2, 3, 12])
def test_the_centre_has_a_gradient_wherever_it_can_be(points: int) -> None:
    """The narrowest filters, the widest stride, and a centre pushed to the image's edge and to most places within it."""
    window_map = WindowMap(1, points, (28, 28), 1).double()
    pushed = torch.tensor([-1e3, -30.0, -3.0, -0.5, 0.1, 0.5, 3.0, 30.0, 1e3], dtype=torch.float64)
    extreme = pushed.new_tensor([0.0, 0.0, -1e4, 1e4, 0.0])
    outputs = extreme.repeat(len(pushed), 1)
    outputs[:, 0] = pushed
    outputs.requires_grad_()
    window_map.linear = torch.nn.Identity()
    window = window_map(outputs)
    assert window.x.min() > 0
    assert window.x.max() < 29
    _, columns = window_map.filters(window)
    image = torch.arange(28, dtype=torch.float64).square()
    (columns @ image).sum().backward()
    gradient = outputs.grad[:, 0].abs()
    assert outputs.grad.isfinite().all()
    assert (gradient > 1e-9).all(), gradient


def test_windows_of_any_state_are_finite_and_bounded() -> None:
    window_map = WindowMap(4, 5, SIZE, 1)
    torch.nn.init.normal_(window_map.linear.weight, std=1e25)
    window = window_map(torch.randn(50, 4))
    assert (window.x >= 0).all()
    assert (window.x <= 13).all()
    assert (window.y >= 0).all()
    assert (window.y <= 10).all()
    assert (window.stride * 4 <= 11.001).all()
    assert (window.stride > 0).all()
    assert (window.variance >= 0.2499).all()
    assert (window.variance <= 144.1).all()
    assert all(each.isfinite().all() for each in window_map.filters(window))


def test_windows_are_asked_for_in_pixels_of_their_own_side() -> None:
    """x runs along the width and y along the height, of an image that is no square."""
    window_map = WindowMap(4, 3, SIZE, 1)
    window = window_map(torch.zeros(1, 4))
    assert window.x.item() == pytest.approx(6.5)
    assert window.y.item() == pytest.approx(5.0)
    rows, columns = window_map.filters(window)
    assert rows.shape == (1, 3, 9)
    assert columns.shape == (1, 3, 12)


def test_modules_read_and_write_through_their_own_window() -> None:
    h, images = torch.randn(3, 4), torch.randn(3, 2, *SIZE)
    reader, writer = ReadWindow(4, 2, (2, *SIZE)), WriteWindow(4, 3, (2, *SIZE))
    for module in (reader, writer):
        torch.nn.init.normal_(module.window.linear.weight)
    seen, painted = reader(h, images), writer(h)
    assert seen.shape == (3, reader.features) == (3, 8)
    assert painted.shape == images.shape
    torch.testing.assert_close(seen, _seen(reader, h, images))
    assert not torch.allclose(reader(h.flip(0), images), seen), "another state looks elsewhere"


def _seen(reader: ReadWindow, h: Tensor, images: Tensor) -> Tensor:
    window = reader.window(h)
    rows, columns = reader.window.filters(window)
    return torch.einsum("n,nih,njw,nchw->ncij", window.gain, rows, columns, images).flatten(1)
