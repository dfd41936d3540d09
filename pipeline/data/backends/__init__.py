"""One file per way of turning (sample ids, plan) into pixels; `registry` finds them by file name."""
