"""What every codec asks of the rows that it is given."""

import numpy as np

from pipeline.core.errors import StoreError


def check_rows(rows_BK: np.ndarray, *, codec: str, width: int, greatest: float) -> None:
    """Refuse what is not (B, width) float32 with finite values of at most `greatest` in size.

    Raises:
        StoreError: with both shapes, or with the first bad value and its place.
    """
    if rows_BK.ndim != 2 or rows_BK.shape[1] != width or rows_BK.dtype != np.float32:
        raise StoreError(
            f"{codec} keeps rows of another form than those it was given:\n"
            f"  keeps: (rows, {width}) float32\n  given: {rows_BK.shape} {rows_BK.dtype}"
        )
    if np.maximum(rows_BK.max(initial=0.0), -rows_BK.min(initial=0.0)) <= greatest:  # not so with a NaN
        return
    row, column = np.argwhere(~(np.abs(rows_BK) <= greatest))[0]
    raise StoreError(
        f"{codec} keeps finite values up to {greatest:.8g}, not {rows_BK[row, column]} (row {row}, column {column} "
        f"of a batch): is the teacher's precision too low, or are its weights not trained? Otherwise use another codec"
    )
