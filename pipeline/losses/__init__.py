"""One file per method: the record of its hyper-parameters, its paper and its figures. `_shared/registry` finds them."""
