"""One file per codec; `stores.codec_registry` knows them by the id that stands on disk."""
