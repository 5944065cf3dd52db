"""Images moved, turned, scaled, sheared and bent a little, anew in every epoch.

A row's change is a function of the seed, the epoch and the row's number alone.
"""

import math
from functools import lru_cache, partial
from typing import Any

import numpy as np
import tensorflow as tf

from models.alignment import allocate
from models.config import Augmentation
from models.feeding import Array, lend, to_array
from models.programs import Compiled

# Images of one call of the program: their fields fit a core's cache.
_BLOCK = 256
# Random numbers of a row: one for each of shift (two), rotation, scale and shear.
_AFFINE = 5
# Zeros before and after an image, down and across: what is farther out is read in them, and the
# pixels next to that.
_FRAME = (1, 2)


def augment(
    images: Array,
    rows: Array,
    epoch: int,
    *,
    settings: Augmentation,
    shape: tuple[int, int],
    seed: int,
) -> Array:
    """Changes every image in its own way; which others are with it makes no difference.

    The change of place of each pixel is one affine map about the centre of the image, and an
    elastic field: uniform noise smoothed by a Gaussian. The new value is read between the four
    nearest pixels; outside the image all is 0.

    ``partial(augment, settings=..., shape=..., seed=...)`` is a change for ``training.fit``.

    Args:
        images: ``(rows, height * width)``.
        rows: Number of each image in its dataset, ``(rows,)``.
        epoch: Another epoch changes the same row in another way.
        settings: How far images may change.
        shape: Height and width.
        seed: Of all draws.

    Returns:
        As ``images``, float32.

    References:
        Simard, Steinkraus, Platt (2003), Best practices for convolutional neural networks
        applied to visual document analysis.
    """
    if not settings.is_on:
        return images
    changed = allocate(images.shape, np.float32)
    program = _compile(settings, shape)
    # Framed here: XLA, with multi-output fusion, would do it again for every pixel read. A block's
    # result is there before the next one is written over it.
    framed = allocate((_BLOCK, *(size + sum(_FRAME) for size in shape)), np.float32)
    framed[:] = 0
    inside = framed[:, _FRAME[0] : -_FRAME[1], _FRAME[0] : -_FRAME[1]]
    key = tf.constant([seed, epoch], tf.uint32)
    for first in range(0, len(images), _BLOCK):
        block = slice(first, first + _BLOCK)
        pixels = images[block]
        numbers = rows[block].astype(np.uint32)
        # Equal blocks share one program, in which a row's place makes no difference.
        missing = _BLOCK - len(pixels)
        inside[: len(pixels)] = pixels.reshape(-1, *shape)
        numbers = np.pad(numbers, (0, missing))
        result = to_array(program(lend(framed), lend(numbers), key))
        changed[block] = result[: _BLOCK - missing]
    return changed


def warp(framed: Any, down: Any, right: Any) -> Any:
    """Reads images at other places, by linear interpolation; outside all is 0.

    Args:
        framed: ``(images, height + 3, width + 3)``: a line of 0 above and left, two beyond.
        down: How far below its own place each pixel is read, ``(images, height, width)``.
        right: How far to the right of it, as ``down``.

    Returns:
        As ``down``.
    """
    count, height, width = down.shape
    y = tf.range(height, dtype=tf.float32)[:, None] + down
    x = tf.range(width, dtype=tf.float32) + right
    y, x = tf.clip_by_value(y + 1, 0.0, height + 1.0), tf.clip_by_value(x + 1, 0.0, width + 1.0)
    top, left = tf.floor(y), tf.floor(x)
    below, beside = y - top, x - left
    across = framed.shape[2]
    first = tf.range(count)[:, None, None] * (framed.shape[1] * across)
    place = first + tf.cast(top * across + left, tf.int32)
    pixels = tf.reshape(framed, [-1])
    one, two, three, four = (
        tf.gather(pixels, place + offset) for offset in (0, 1, across, across + 1)
    )
    upper, lower = one + beside * (two - one), three + beside * (four - three)
    return upper + below * (lower - upper)


@lru_cache(maxsize=8)
def _compile(settings: Augmentation, shape: tuple[int, int]) -> Compiled:
    return Compiled(partial(_change, settings, shape))


def _change(
    settings: Augmentation, shape: tuple[int, int], framed: Any, rows: Any, key: Any
) -> Any:
    """What ``augment`` does to one block."""
    places = _affine(settings, shape, _draw(key, rows, 0, _AFFINE))
    if settings.elastic:
        noise = tf.reshape(_draw(key, rows, _AFFINE, 2 * math.prod(shape)), places.shape)
        places += settings.elastic * _smooth(noise, settings.smoothness)
    changed = warp(framed, places[:, 0], places[:, 1])
    return tf.reshape(changed, (-1, math.prod(shape)))


def _affine(settings: Augmentation, shape: tuple[int, int], drawn: Any) -> Any:
    """How far down and right each pixel is read, ``(images, 2, height, width)``.

    Args:
        settings: The greatest shift, rotation, scale and shear.
        shape: Height and width.
        drawn: Numbers from -1 to 1, ``(images, 5)``.
    """
    angle = math.radians(settings.rotation) * drawn[:, 2]
    # The inverse map: where a pixel is read is where it comes from.
    scale = tf.exp(-math.log1p(settings.scale) * drawn[:, 3])
    down, right = scale * tf.cos(angle), scale * tf.sin(angle)
    shear = settings.shear * drawn[:, 4]
    # Less the pixel's own place, so that no change is exactly 0.
    maps = [
        [down - shear * right - 1, -right, -settings.shift * drawn[:, 0]],
        [right + shear * down, down - 1, -settings.shift * drawn[:, 1]],
    ]
    matrices = tf.transpose(tf.stack([tf.stack(row) for row in maps]), (2, 0, 1))
    y, x = np.meshgrid(*(np.arange(size) - (size - 1) / 2 for size in shape), indexing="ij")
    places = np.stack([y, x, np.ones(shape)]).reshape(3, -1).astype(np.float32)
    return tf.reshape(tf.reshape(matrices, (-1, 3)) @ places, (-1, 2, *shape))


def _smooth(fields: Any, deviation: float) -> Any:
    """Convolves fields with a Gaussian, ``(..., height, width)``; beyond the edge is 0."""
    height, width = fields.shape[-2:]
    along_width = tf.reshape(fields, (-1, width)) @ _gaussian(width, deviation)
    columns = tf.linalg.matrix_transpose(tf.reshape(along_width, (-1, height, width)))
    along_height = tf.reshape(columns, (-1, height)) @ _gaussian(height, deviation)
    smooth = tf.linalg.matrix_transpose(tf.reshape(along_height, (-1, width, height)))
    return tf.reshape(smooth, fields.shape)


def _gaussian(size: int, deviation: float) -> Any:
    """The convolution of a line as a matrix, ``(size, size)``."""
    distance = np.arange(size)[:, None] - np.arange(size)
    reach = np.arange(-10 * size, 10 * size + 1)
    weights = np.exp(-(distance**2) / (2 * deviation**2))
    return (weights / np.exp(-(reach**2) / (2 * deviation**2)).sum()).astype(np.float32)


def _draw(key: Any, rows: Any, first: int, count: int) -> Any:
    """Draws numbers from -1 to 1 from seed, epoch, row and position, ``(rows, count)``.

    A hash, not a stream: nothing is carried from one number to the next.

    References:
        Jarzynski, Olano (2020), Hash functions for GPU rendering (pcg4d).
    """
    positions = tf.range(first, first + count)
    lanes = (rows[:, None], positions[None], key[0], key[1])
    a, b, c, d = (tf.cast(lane, tf.uint32) * 1664525 + 1013904223 for lane in lanes)
    a, b, c, d = _mix(a, b, c, d)
    a, b, c, d = (lane ^ tf.bitwise.right_shift(lane, 16) for lane in (a, b, c, d))
    bits = _mix(a, b, c, d)[-1]
    # The upper 24 bits fill a float32's fraction.
    upper = tf.cast(tf.bitwise.right_shift(bits, 8), tf.int32)
    return tf.cast(upper, tf.float32) * 2.0**-23 - 1.0


def _mix(a: Any, b: Any, c: Any, d: Any) -> tuple[Any, Any, Any, Any]:
    a += b * d
    b += c * a
    c += a * b
    d += b * c
    return a, b, c, d
