"""Pillow's bicubic resize and nearest-neighbour rotation, to the bit, of the window that is asked for alone.

Pillow resamples rows, rounds to 8 bits, then resamples columns, with weights in 22 bits of fixed point. So does this,
but many pixels at a time: a strip of rows is turned on its side, so that what shares its weights lies in one piece.
Pillow is the reference of the tests, and what a rotation by right angles still goes to.
"""

import math
from typing import NamedTuple

import numpy as np

from common.kernels import kernel

BITS = 22  # of a weight's fraction: Pillow's 32 - 8 - 2
ROWS = 64  # of a strip, a multiple of 8
FARTHEST = 32767  # px that Pillow's fixed-point rotation reaches

_M32, _M16, _M8 = np.uint64(0x00000000FFFFFFFF), np.uint64(0x0000FFFF0000FFFF), np.uint64(0x00FF00FF00FF00FF)
_1, _2, _3, _4, _5 = np.uintp(1), np.uintp(2), np.uintp(3), np.uintp(4), np.uintp(5)
_S32, _S16, _S8 = np.uint64(32), np.uint64(16), np.uint64(8)


class Axis(NamedTuple):
    """Where pixels of an output come from along one axis: `number` of them, from the `first` on."""

    size: int  # px of the input
    start: float  # of the output's first pixel, px of the input: an edge, as a float32 holds it
    scale: float  # px of the input per px of the output
    first: int
    number: int


def axis_of(size: int, box: tuple[float, float], wanted: int, first: int, number: int) -> Axis:
    """Of an input of `size` px whose part from box[0] to box[1] becomes `wanted` px, as in Pillow's `resize`."""
    low, high = np.float32(box[0]), np.float32(box[1])  # Pillow's box is of floats
    return Axis(size, float(low), float(high - low) / wanted, first, number)


def resample_into(canvas: np.ndarray, image: np.ndarray, place: tuple[int, int], x: Axis, y: Axis, flip: bool) -> None:
    """Write pixels of the resized `image` (h, w, 3) to a canvas (H, W, 3) at `place` (left, top), mirrored if `flip`.

    Both uint8 and contiguous; `place` and the numbers of the axes, at least 1, say which pixels are written.
    """
    _resample(canvas, image, *place, *x, *y, flip)


def rotate_into(out: np.ndarray, canvas: np.ndarray, degrees: float) -> None:
    """Write a canvas (H, W, 3) rotated about its centre, counter-clockwise as seen, to `out`; black comes in."""
    height, width = canvas.shape[:2]
    angle = -math.radians(degrees % 360.0)
    cosine, sine = round(math.cos(angle), 15), round(math.sin(angle), 15)
    if sine == 0 or cosine == 0 or 2 * (width + height) > FARTHEST:
        from PIL import Image

        out[:] = np.asarray(Image.fromarray(canvas).rotate(degrees, Image.Resampling.NEAREST))
        return
    x0 = cosine * (-width / 2) + sine * (-height / 2) + 0.0 + width / 2
    y0 = round(-math.sin(angle), 15) * (-width / 2) + cosine * (-height / 2) + 0.0 + height / 2
    numbers = (cosine, sine, -sine, cosine, x0 + cosine * 0.5 + sine * 0.5, y0 + -sine * 0.5 + cosine * 0.5)
    _rotate(out, canvas, *(math.floor(number * 65536.0 + 0.5) for number in numbers))


@kernel
def _bicubic(x: float) -> float:
    """The filter, with Pillow's a = -0.5, in its order of operations."""
    x = abs(x)
    if x < 1.0:
        return ((-0.5 + 2.0) * x - (-0.5 + 3.0)) * x * x + 1
    if x < 2.0:
        return (((x - 5) * x + 8) * x - 4) * -0.5
    return 0.0


@kernel
def _weights(size: int, start: float, scale: float, first: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """First input pixel (count,) of each output pixel; its weights (count, taps) in fixed point, zeros at the end."""
    wide = max(scale, 1.0)
    support = 2.0 * wide
    inverse = 1.0 / wide
    most = min(size, math.ceil(support) * 2 + 1)
    starts = np.empty(count, np.int64)
    exact = np.zeros((count, most), np.float64)
    taps = 1
    for i in range(count):
        centre = start + (first + i + 0.5) * scale
        low = max(0, int(centre - support + 0.5))
        number = min(size, int(centre + support + 0.5)) - low
        total = 0.0
        for t in range(number):
            weight = _bicubic((t + low - centre + 0.5) * inverse)
            exact[i, t] = weight
            total += weight
        if total != 0.0:
            for t in range(number):
                exact[i, t] /= total
        starts[i] = low
        taps = max(taps, number)
    taps = max(6, taps + taps % 2)  # what _blend takes
    weights = np.zeros((count, taps), np.int32)
    for i in range(count):
        for t in range(min(taps, most)):
            weight = exact[i, t] * (1 << BITS)
            weights[i, t] = int(weight - 0.5) if weight < 0 else int(weight + 0.5)
    return starts, weights


@kernel
def _blend(
    out: np.ndarray, to: np.ndarray, source: np.ndarray, at: np.ndarray, step: int, weights: np.ndarray, length: int
) -> None:
    """out[to[i] + j] = sum over t of weights[i, t] * source[at[i] + t * step + j] for j < length, in 8 bits.

    Six weights, which is what halving takes at most, in one go; more of them two by two after that. Indices without a
    sign: Numba looks whether one with a sign counts from the end, and then nothing is done side by side.
    """
    half = np.int32(1 << (BITS - 1))
    totals = np.empty(length, np.int32)
    taps = weights.shape[1]
    for i in range(len(at)):
        o, s0, next_ = np.uintp(to[i]), np.uintp(at[i]), np.uintp(step)
        s1, s2, s3, s4, s5 = s0 + next_, s0 + next_ * _2, s0 + next_ * _3, s0 + next_ * _4, s0 + next_ * _5
        w0, w1, w2, w3, w4, w5 = (
            weights[i, 0],
            weights[i, 1],
            weights[i, 2],
            weights[i, 3],
            weights[i, 4],
            weights[i, 5],
        )
        for k in range(length):
            j = np.uintp(k)
            totals[j] = np.int32(
                half + w0 * source[s0 + j] + w1 * source[s1 + j] + w2 * source[s2 + j]
                + w3 * source[s3 + j] + w4 * source[s4 + j] + w5 * source[s5 + j]
            )  # fmt: skip
        for t in range(6, taps, 2):
            s0 = np.uintp(at[i] + t * step)
            s1 = s0 + next_
            w0, w1 = weights[i, t], weights[i, t + 1]
            for k in range(length):
                j = np.uintp(k)
                totals[j] = np.int32(totals[j] + w0 * source[s0 + j] + w1 * source[s1 + j])
        for k in range(length):
            j = np.uintp(k)
            out[o + j] = min(255, max(0, totals[j] >> BITS))


@kernel
def _turn(source: np.ndarray, at: int, step: int, blocks: int, target: np.ndarray, to: int, apart: int) -> None:
    """Transpose bytes, 8 x 8 at a time: 8 rows of `blocks` words become 8 * blocks rows of one word.

    source, target: (n,) uint64, bytes seen as words. The rows begin at source[at], `step` words apart; what they become
    begins at target[to], `apart` words apart.
    """
    for j in range(blocks):
        i, k = np.uintp(at + j), np.uintp(to + 8 * j * apart)
        s1, s2, s4 = np.uintp(step), np.uintp(2 * step), np.uintp(4 * step)
        a0, a1, a2, a3 = source[i], source[i + s1], source[i + s2], source[i + s2 + s1]
        i += s4
        a4, a5, a6, a7 = source[i], source[i + s1], source[i + s2], source[i + s2 + s1]
        t = ((a0 >> _S32) ^ a4) & _M32
        a4, a0 = a4 ^ t, a0 ^ (t << _S32)
        t = ((a1 >> _S32) ^ a5) & _M32
        a5, a1 = a5 ^ t, a1 ^ (t << _S32)
        t = ((a2 >> _S32) ^ a6) & _M32
        a6, a2 = a6 ^ t, a2 ^ (t << _S32)
        t = ((a3 >> _S32) ^ a7) & _M32
        a7, a3 = a7 ^ t, a3 ^ (t << _S32)
        t = ((a0 >> _S16) ^ a2) & _M16
        a2, a0 = a2 ^ t, a0 ^ (t << _S16)
        t = ((a1 >> _S16) ^ a3) & _M16
        a3, a1 = a3 ^ t, a1 ^ (t << _S16)
        t = ((a4 >> _S16) ^ a6) & _M16
        a6, a4 = a6 ^ t, a4 ^ (t << _S16)
        t = ((a5 >> _S16) ^ a7) & _M16
        a7, a5 = a7 ^ t, a5 ^ (t << _S16)
        t = ((a0 >> _S8) ^ a1) & _M8
        a1, a0 = a1 ^ t, a0 ^ (t << _S8)
        t = ((a2 >> _S8) ^ a3) & _M8
        a3, a2 = a3 ^ t, a2 ^ (t << _S8)
        t = ((a4 >> _S8) ^ a5) & _M8
        a5, a4 = a5 ^ t, a4 ^ (t << _S8)
        t = ((a6 >> _S8) ^ a7) & _M8
        a7, a6 = a7 ^ t, a6 ^ (t << _S8)
        s1, s2, s4 = np.uintp(apart), np.uintp(2 * apart), np.uintp(4 * apart)
        target[k], target[k + s1], target[k + s2], target[k + s2 + s1] = a0, a1, a2, a3
        k += s4
        target[k], target[k + s1], target[k + s2], target[k + s2 + s1] = a4, a5, a6, a7


@kernel
def _resample(
    canvas: np.ndarray, image: np.ndarray, left: int, top: int,
    width: int, x_start: float, x_scale: float, x_first: int, columns: int,
    height: int, y_start: float, y_scale: float, y_first: int, rows: int, flip: bool,
) -> None:  # fmt: skip
    x_starts, x_weights = _weights(width, x_start, x_scale, x_first, columns)
    y_starts, y_weights = _weights(height, y_start, y_scale, y_first, rows)
    x_taps, y_taps = x_weights.shape[1], y_weights.shape[1]
    low, high = x_starts[0] // 8 * 8, min(width, x_starts[columns - 1] + x_taps)  # columns of the input: whole words
    above, below = y_starts[0], min(height, y_starts[rows - 1] + y_taps)  # and rows
    # Weights that fill up are zero: what they are multiplied with has a place, whatever stands there.
    line, narrow, words = ((high - low) * 3 + 7) // 8, (columns * 3 + 7) // 8, ROWS // 8
    lines = np.empty(ROWS * line, np.uint64)
    sideways = np.empty((line * 8 + 3 * x_taps) * words, np.uint64)
    strip = np.empty(narrow * 8 * words, np.uint64)
    done = np.empty(((below - above + ROWS - 1) // ROWS * ROWS + y_taps) * narrow, np.uint64)
    flat, lines8, sideways8 = image.reshape(-1), lines.view(np.uint8), sideways.view(np.uint8)
    strip8, done8 = strip.view(np.uint8), done.view(np.uint8)
    stored = flat[: len(flat) // 8 * 8].view(np.uint64)
    at = (x_starts - low) * 3 * ROWS
    to = np.arange(columns) * 3 * ROWS
    if flip:
        to = to[::-1].copy()
    for row in range(above, below, ROWS):
        if width % 8 == 0 and row + ROWS <= height:
            source, first, step = stored, (row * width + low) * 3 // 8, width * 3 // 8
        else:  # rows that do not begin with a word, or a strip that reaches beyond the image
            for r in range(min(ROWS, below - row)):
                begin, place = np.uintp(((row + r) * width + low) * 3), np.uintp(r * line * 8)
                for k in range((high - low) * 3):
                    lines8[place + np.uintp(k)] = flat[begin + np.uintp(k)]
            source, first, step = lines, 0, line
        for word in range(words):
            _turn(source, first + 8 * word * step, step, line, sideways, word, words)
        _blend(strip8, to, sideways8, at, 3 * ROWS, x_weights, 3 * ROWS)
        for block in range(narrow):
            for word in range(words):
                into = (row - above + 8 * word) * narrow + block
                _turn(strip, 8 * block * words + word, words, 1, done, into, narrow)
    to = ((top + np.arange(rows)) * canvas.shape[1] + left) * 3
    _blend(canvas.reshape(-1), to, done8, (y_starts - above) * narrow * 8, narrow * 8, y_weights, columns * 3)


@kernel
def _rotate(out: np.ndarray, canvas: np.ndarray, a0: int, a1: int, a3: int, a4: int, a2: int, a5: int) -> None:
    """Pillow's affine transform in 16 bits of fraction."""
    height, width = canvas.shape[:2]
    source, target = canvas.reshape(-1), out.reshape(-1)
    to = np.uintp(0)
    for y in range(height):
        x_at, y_at = a2 + y * a1, a5 + y * a4
        for _ in range(width):
            column, row = x_at >> 16, y_at >> 16
            if 0 <= column < width and 0 <= row < height:
                at = np.uintp((row * width + column) * 3)
                target[to], target[to + _1], target[to + _2] = source[at], source[at + _1], source[at + _2]
            else:
                target[to] = target[to + _1] = target[to + _2] = 0
            to += _3
            x_at += a0
            y_at += a3
