"""What can be wrong with a store. A message says rule, value and remedy; upper parts re-raise it as StoreError."""


class StoreFormatError(Exception):
    """A file or folder is not what the format says it must be."""


class StoreRowError(StoreFormatError):
    """Rows whose bytes are not those that were written.

    Attributes:
        view: their view.
        ids: their sample ids.
    """

    def __init__(self, message: str, *, view: int, ids: tuple[int, ...]) -> None:
        super().__init__(message)
        self.view, self.ids = view, ids
