"""One file per augmentation policy; `registry` finds them by file name."""
