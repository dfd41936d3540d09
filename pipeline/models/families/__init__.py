"""One file per family of networks of this package, with its `NETWORKS`; `sources.reflux` finds them by file name."""
