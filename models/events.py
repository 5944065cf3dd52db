"""Histories as TensorBoard's event files, written after the fact from what was recorded."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import tensorflow as tf

# TensorBoard takes any file with this in its name; without a time in it, the name never varies.
NAME = "events.out.tfevents.0.headstart"


def write_events(history: Mapping[str, Sequence[float]], folder: Path) -> None:
    """Writes one training's values, a step for each epoch, the same history to the same bytes.

    Args:
        history: Values of ``loss``, ``val_loss`` and so on, one for each epoch.
        folder: Where the file goes; TensorBoard calls the training by the folder's name.
    """
    folder.mkdir(parents=True, exist_ok=True)
    epochs = max(map(len, history.values()), default=0)
    with tf.io.TFRecordWriter(str(folder / NAME)) as writer:
        # How TensorBoard recognises the format; the times are not kept, so epochs stand for them.
        writer.write(tf.compat.v1.Event(file_version="brain.Event:2").SerializeToString())
        for epoch in range(epochs):
            values = [
                tf.compat.v1.Summary.Value(tag=name, simple_value=series[epoch])
                for name, series in history.items()
            ]
            summary = tf.compat.v1.Summary(value=values)
            event = tf.compat.v1.Event(step=epoch + 1, wall_time=epoch + 1, summary=summary)
            writer.write(event.SerializeToString())
