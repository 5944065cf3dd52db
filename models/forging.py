"""Forged classes: images put together from those of two classes, as further classes to tell apart.

Few features are enough to tell a few classes apart, and a trunk learns no more than it must. Which
two classes an image's halves came from can be told only by one that knows the parts of all of them,
and other classes are made of such parts too.

References:
    Class Forge (openreview.net/forum?id=flhNPdfGWJU): classes put together from parts of others,
    for features that serve unseen classes better.
"""

from collections.abc import Callable, Mapping

import numpy as np

from models.feeding import Array

# Which pixels come from the second image, by their distance down and right from the centre.
CUTS: Mapping[str, Callable[[Array, Array], Array]] = {
    "lower half": lambda down, right: down > 0,
    "right half": lambda down, right: right > 0,
    "below one diagonal": lambda down, right: down > right,
    "below the other diagonal": lambda down, right: down + right > 0,
    "two opposite quarters": lambda down, right: (down > 0) ^ (right > 0),
}
# Keeps the draws apart from those of the order of training.
_STREAM = 2


def count_forged(classes: int) -> int:
    """How many classes can be forged: one for each cut and each two classes in their order."""
    return len(CUTS) * classes * (classes - 1)


def forge(
    images: Array, labels: Array, share: float, *, shape: tuple[int, int], classes: int, seed: int
) -> tuple[Array, Array]:
    """Puts images together from two images of different classes each.

    Args:
        images: ``(rows, height * width)``.
        labels: Their classes from 0, ``(rows,)``.
        share: How many to forge for each image there is; all cuts and images serve as often.
        shape: Height and width.
        classes: How many classes the labels may name.
        seed: Of all draws.

    Returns:
        Forged images, as ``images``, and their labels: from ``classes`` to below ``classes +
        count_forged(classes)``.

    Raises:
        ValueError: If all images are of one class.
    """
    if len(np.unique(labels)) < 2:
        msg = f"Nothing can be forged from {len(labels)} images of one class; two are needed."
        raise ValueError(msg)
    random = np.random.default_rng([seed, _STREAM])
    rows, count = len(images), round(share * len(images))
    first = np.resize(random.permutation(rows), count)
    second = _draw_others(random, labels, first)
    cut = np.arange(count) % len(CUTS)
    forged = images[first]
    for number, name in enumerate(CUTS):
        put = np.ix_(np.flatnonzero(cut == number), np.flatnonzero(_mask(name, shape)))
        forged[put] = images[second[put[0]], put[1]]
    a, b = labels[first], labels[second]
    pairs = a * (classes - 1) + b - (b > a)
    return forged, classes + cut * classes * (classes - 1) + pairs


def _draw_others(random: np.random.Generator, labels: Array, rows: Array) -> Array:
    """For each row another one of any other class."""
    order = np.argsort(labels, kind="stable")
    starts = np.searchsorted(labels[order], labels[rows], side="left")
    ends = np.searchsorted(labels[order], labels[rows], side="right")
    # Classes lie end to end. A step from the end of the own class goes round to before its start.
    others = len(order) - (ends - starts)
    steps = (random.random(len(rows)) * others).astype(int)
    drawn: Array = order[(ends + steps) % len(order)]
    return drawn


def _mask(name: str, shape: tuple[int, int]) -> Array:
    """Which pixels come from the second image, ``(height * width,)``."""
    down, right = (np.arange(size) - (size - 1) / 2 for size in shape)
    return np.broadcast_to(CUTS[name](down[:, None], right[None]), shape).reshape(-1)
