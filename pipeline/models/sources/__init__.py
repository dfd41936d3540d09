"""One file per source of models, with its `SOURCE`; `pipeline.models.spec` finds them by file name."""
