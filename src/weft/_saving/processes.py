"""What several processes tell each other, in the main thread of each; alone, one tells itself."""

from __future__ import annotations

import jax
import numpy as np

_LONGEST = 1024


def text_of_first(text: str) -> str:
    """Returns the text that the first process gives; every process calls this."""
    if jax.process_count() == 1:
        return text
    from jax.experimental import multihost_utils

    data = np.zeros(_LONGEST, np.uint8)
    content = text.encode()
    data[: len(content)] = np.frombuffer(content, np.uint8)
    return bytes(np.asarray(multihost_utils.broadcast_one_to_all(data))).rstrip(b"\0").decode()


def rows_of_all(row: np.ndarray) -> np.ndarray:
    """Returns the rows that the processes give, all of one length; every process calls this."""
    if jax.process_count() == 1:
        return row[None]
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(row))
