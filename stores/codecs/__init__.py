"""One file per codec; `registry` knows them by the id that stands on disk."""
