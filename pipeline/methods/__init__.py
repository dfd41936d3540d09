"""One file per distillation method; `registry` finds them by file name."""
