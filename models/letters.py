"""A stand-in for notMNIST where that is not given: letters A to J drawn from installed fonts.

The fonts are those that Matplotlib brings, so the images are the same wherever the same releases
are installed. No figure measured on them may be compared with one measured on notMNIST.
"""

import hashlib
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from models.images import Array, Dataset, DatasetError, read_only
from models.sources import Source, refuse_change

if TYPE_CHECKING:
    from PIL import ImageFont

NOTE = "stand-in for notMNIST: letters drawn from fonts; not comparable with notMNIST's figures"
CLASSES = "ABCDEFGHIJ"
SIDE = 28

TRAIN_FONTS = (
    "DejaVuSans.ttf",
    "DejaVuSans-Bold.ttf",
    "DejaVuSans-Oblique.ttf",
    "DejaVuSansMono.ttf",
    "DejaVuSansMono-Bold.ttf",
    "DejaVuSansMono-Oblique.ttf",
    "DejaVuSerif.ttf",
    "DejaVuSerif-Bold.ttf",
    "DejaVuSerif-BoldItalic.ttf",
    "STIXGeneral.ttf",
    "STIXGeneralBolIta.ttf",
    "STIXGeneralItalic.ttf",
    "cmb10.ttf",
    "cmmi10.ttf",
    "cmr10.ttf",
    "cmtt10.ttf",
)
# No training image is drawn with these, so that a network must know letters, not fonts.
TEST_FONTS = (
    "DejaVuSans-BoldOblique.ttf",
    "DejaVuSansMono-BoldOblique.ttf",
    "DejaVuSerif-Italic.ttf",
    "STIXGeneralBol.ttf",
    "cmss10.ttf",
    "cmti10.ttf",
)

# To be raised by whoever changes what is drawn: fonts and parameters alone would not tell.
EDITION = 1
# Glyphs are drawn once on a canvas of so many pixels and then sampled, distorted, into images.
CANVAS = 56
GLYPH = 54
# Widths of the square by which strokes are thickened, in canvas pixels; 1 leaves them.
STROKES = (1, 3, 5)
# Images that share one random stream: a limit makes no more of them than it takes.
CHUNK = 1000

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Letters:
    """Letters A to J, white on black, 28 x 28, drawn afresh from a seed whenever they are read.

    Each image is a glyph in one of a few thicknesses, sheared, scaled, turned and moved a little,
    bent along both axes, dimmed in one box, with contrast and noise of its own. A softmax on pixels
    gets about 86% of the test images right, two hidden layers of 300 ReLU units about 96%.

    The source names the SHA-256 of each font, the releases of what draws, and the recipe.

    Attributes:
        train_rows: Training images.
        test_rows: Test images; their fonts are others.
        seed: Of all that is random.
        warp: Largest shear, scaling and turn, as an entry of the affine matrix.
        shift: Largest move, in pixels of the image.
        wave: Largest bend, in pixels of the image.
        noise: Standard deviation of the noise, in grey levels of 255.
    """

    train_rows: int = 40_000
    test_rows: int = 5_000
    seed: int = 0
    warp: float = 0.25
    shift: float = 2.2
    wave: float = 1.2
    noise: float = 25.0

    def identify(self) -> Source:
        """See ``Material``."""
        import PIL
        from PIL import features

        fonts = {name: _digest_of(name) for name in TRAIN_FONTS + TEST_FONTS}
        freetype = features.version("freetype2")
        drawn_by = f"Pillow {PIL.__version__}, FreeType {freetype}, NumPy {np.__version__}"
        recipe = f"edition {EDITION}: {self}"
        return Source(kind="letters", files={**fonts, "drawn by": drawn_by, "recipe": recipe})

    def read(self, limit: int, expected: Source | None) -> Dataset:
        """See ``Material``."""
        refuse_change("letters", self.identify(), expected)
        x_train, y_train = self._draw(
            TRAIN_FONTS, 0, min(limit or self.train_rows, self.train_rows)
        )
        x_test, y_test = self._draw(TEST_FONTS, 1, min(limit or self.test_rows, self.test_rows))
        return Dataset(x_train, y_train, x_test, y_test, (SIDE, SIDE), note=NOTE)

    def _draw(self, fonts: tuple[str, ...], part: int, rows: int) -> tuple[Array, Array]:
        """The first images of one part, (rows, columns), and their classes, (rows,)."""
        glyphs = _draw_glyphs(fonts)
        images = np.empty((rows, SIDE * SIDE), np.uint8)
        labels = np.empty(rows, np.uint8)
        for start in range(0, rows, CHUNK):
            # All of a chunk is drawn even where a few rows are kept, or its numbers would differ.
            rng = np.random.default_rng([self.seed, part, start])
            kept = slice(start, min(start + CHUNK, rows))
            chosen = rng.integers(0, len(CLASSES), CHUNK)
            pixels = self._distort(glyphs, chosen, rng)
            labels[kept] = chosen[: kept.stop - start]
            images[kept] = pixels[: kept.stop - start]
        return read_only(images), read_only(labels)

    def _distort(self, glyphs: Floats, chosen: Array, rng: np.random.Generator) -> Array:
        """One image of each chosen class, (rows, columns) of uint8."""
        rows = len(chosen)
        variants = rng.integers(0, glyphs.shape[1], rows)
        x, y = self._places(rows, rng)
        images = _sample(glyphs, (chosen, variants), x, y)
        images *= 1 - _patches(rows, rng)
        contrast = rng.uniform(0.5, 1.0, (rows, 1)).astype(np.float32)
        noise = rng.standard_normal(images.shape, np.float32) * np.float32(self.noise)
        return np.clip(images * contrast * 255 + noise, 0, 255).astype(np.uint8)

    def _places(self, rows: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
        """Where on the canvas each pixel is taken from: columns and lines, (rows, columns)."""
        grid = np.arange(SIDE, dtype=np.float32) - np.float32((SIDE - 1) / 2)
        line, column = (axis.reshape(-1) for axis in np.meshgrid(grid, grid, indexing="ij"))
        matrix = rng.uniform(-self.warp, self.warp, (4, rows, 1)).astype(np.float32)
        moves = rng.uniform(-self.shift, self.shift, (2, rows, 1)).astype(np.float32)
        bends = rng.uniform(-self.wave, self.wave, (2, rows, 1)).astype(np.float32)
        phases = rng.uniform(-1, 1, (2, rows, 1)).astype(np.float32)
        x = (
            column * (1 + matrix[0])
            + line * matrix[1]
            + moves[0]
            + bends[0] * _arch(line, phases[0])
        )
        y = (
            line * (1 + matrix[2])
            + column * matrix[3]
            + moves[1]
            + bends[1] * _arch(column, phases[1])
        )
        scale, middle = np.float32(CANVAS / SIDE), np.float32((CANVAS - 1) / 2)
        return x * scale + middle, y * scale + middle


def _arch(place: Floats, phase: Floats) -> Floats:
    """A smooth bend of height about 1 along an axis; a polynomial, the same on every processor."""
    unit = place / np.float32(SIDE / 2) - phase
    return 1 - unit * unit


def _patches(rows: int, rng: np.random.Generator) -> Floats:
    """How much of each pixel is covered, 0 to 1, (rows, columns): one box somewhere in each."""
    grid = np.arange(SIDE)
    start = rng.integers(0, SIDE, (2, rows, 1))
    length = rng.integers(0, SIDE // 2, (2, rows, 1))
    lines, columns = (grid >= start) & (grid < start + length)
    cover = rng.uniform(0, 1, (rows, 1, 1)).astype(np.float32)
    covered: Floats = lines[:, :, None] * columns[:, None, :] * cover
    return covered.reshape(rows, -1)


def _sample(glyphs: Floats, which: tuple[Array, Array], x: Floats, y: Floats) -> Floats:
    """Canvas values at fractional places, interpolated between four pixels; 0 outside.

    Args:
        glyphs: (classes, variants, lines, columns), 0 to 1.
        which: Class and variant of each image, (rows,) each.
        x: Columns, (rows, places).
        y: Lines, (rows, places).
    """
    edge = np.float32(CANVAS - 1.001)
    inside = (x >= 0) & (x <= edge) & (y >= 0) & (y <= edge)
    x, y = np.clip(x, 0, edge), np.clip(y, 0, edge)
    column, line = x.astype(np.int64), y.astype(np.int64)
    right, down = x - column, y - line
    first = (which[0] * glyphs.shape[1] + which[1])[:, None] * CANVAS**2 + line * CANVAS + column
    flat = glyphs.reshape(-1)
    above = flat[first] * (1 - right) + flat[first + 1] * right
    below = flat[first + CANVAS] * (1 - right) + flat[first + CANVAS + 1] * right
    sampled: Floats = ((above * (1 - down) + below * down) * inside).astype(np.float32)
    return sampled


@cache
def _draw_glyphs(fonts: tuple[str, ...]) -> Floats:
    """Every letter in every font and thickness, (classes, variants, lines, columns), 0 to 1."""
    from PIL import ImageFont

    # The basic layout: the other one is there or not as the system has a library.
    basic = ImageFont.Layout.BASIC
    faces = [ImageFont.truetype(_font(name), GLYPH, layout_engine=basic) for name in fonts]
    drawn = [[glyph for face in faces for glyph in _variants(face, c)] for c in CLASSES]
    return np.array(drawn, np.float32) / np.float32(255)


def _variants(face: "ImageFont.FreeTypeFont", letter: str) -> Iterator[Array]:
    """The letter in the middle of the canvas, in each thickness, (lines, columns) of uint8."""
    from PIL import Image, ImageDraw, ImageFilter

    drawn = Image.new("L", (2 * CANVAS, 2 * CANVAS))
    ImageDraw.Draw(drawn).text((CANVAS / 2, CANVAS / 2), letter, fill=255, font=face)
    glyph = drawn.crop(drawn.getbbox())
    canvas = Image.new("L", (CANVAS, CANVAS))
    canvas.paste(glyph, ((CANVAS - glyph.width) // 2, (CANVAS - glyph.height) // 2))
    for stroke in STROKES:
        thick = canvas.filter(ImageFilter.MaxFilter(stroke))
        # What is sampled at every second pixel must not hold finer detail.
        yield np.asarray(thick.filter(ImageFilter.BoxBlur(1)))


def _font(name: str) -> str:
    """Where a font lies, found without importing Matplotlib, which takes a second.

    Raises:
        DatasetError: If it is not there.
    """
    package = importlib.util.find_spec("matplotlib")
    for folder in (package and package.submodule_search_locations) or ():
        path = Path(folder, "mpl-data", "fonts", "ttf", name)
        if path.is_file():
            return str(path)
    message = f"dataset letters: Matplotlib's font {name} is not there; install matplotlib again"
    raise DatasetError(message)


def _digest_of(font: str) -> str:
    return hashlib.sha256(Path(_font(font)).read_bytes()).hexdigest()
