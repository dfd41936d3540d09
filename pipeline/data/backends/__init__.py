"""One file per way of turning (sample ids, plan) into pixels; `pipeline.data.backend` finds them by file name."""
