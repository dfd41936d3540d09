"""One file per augmentation policy; `pipeline.data.policy` finds them by file name."""
