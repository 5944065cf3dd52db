"""Arrays that a stage writes in blocks, and goes on with where a dead run stopped."""

import json
import os
from collections.abc import Sequence
from io import BufferedRandom
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from artifacts.files import sync_file, write_atomic
from tasks.stage import Work

Array = npt.NDArray[Any]

# Rows between two savings: a second or so of work at these networks' sizes.
KEEP_EVERY = 100_000


class BlockWriter:
    """Some float32 arrays of equal length, written together, a block of rows at a time.

    They grow beside the future entry. Every so many rows they are flushed to the disk and their
    length is noted, so a run that dies costs only the rows since.

    Args:
        work: Of the stage that writes.
        part: Names the group, unique in the stage.
        names: A file name of the result for each array.
        widths: Columns of each array.
        rows: How many rows there will be.
    """

    def __init__(
        self, work: Work, part: str, names: Sequence[str], widths: Sequence[int], rows: int
    ) -> None:
        self.work, self.part, self.names, self.rows = work, part, names, rows
        self.widths = list(widths)
        self.paths = [work.state(f"{part}-{index}.npy") for index in range(len(names))]
        self.note = work.state(f"{part}.json")
        self.done = self.kept = self._read_note()
        work.resumed = work.resumed or self.done > 0
        self.files = [self._open(*pair) for pair in zip(self.paths, widths, strict=True)]

    def write(self, blocks: Sequence[Array]) -> None:
        """Appends a block of rows to each array, (rows, columns) each."""
        for file, block in zip(self.files, blocks, strict=True):
            file.write(np.ascontiguousarray(block, np.float32).data)
        self.done += len(blocks[0])
        if self.done - self.kept >= KEEP_EVERY:
            self._keep()

    def finish(self) -> None:
        """Makes the arrays part of the result."""
        for file, path, name in zip(self.files, self.paths, self.names, strict=True):
            file.close()
            path.rename(self.work.path(name))
        self.note.unlink(missing_ok=True)

    def _keep(self) -> None:
        for file, path in zip(self.files, self.paths, strict=True):
            file.flush()
            sync_file(path)
        write_atomic(self.note, json.dumps({"rows": self.done, "widths": self.widths}).encode())
        self.kept = self.done

    def _read_note(self) -> int:
        """Rows that all arrays are known to hold."""
        try:
            note = json.loads(self.note.read_bytes())
        except (OSError, ValueError):
            return 0
        long_enough = all(
            path.is_file() and path.stat().st_size >= self._offset(width, note["rows"])
            for path, width in zip(self.paths, self.widths, strict=True)
        )
        return int(note["rows"]) if note["widths"] == self.widths and long_enough else 0

    def _open(self, path: Path, width: int) -> BufferedRandom:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("r+b" if self.done else "w+b")
        if not self.done:
            header = {"descr": "<f4", "fortran_order": False, "shape": (self.rows, width)}
            np.lib.format.write_array_header_1_0(file, header)
        file.truncate(self._offset(width, self.done))
        file.seek(0, os.SEEK_END)
        return file

    def _offset(self, width: int, rows: int) -> int:
        return HEADER + 4 * width * rows


# NumPy pads the header of a plain array to this.
HEADER = 128
