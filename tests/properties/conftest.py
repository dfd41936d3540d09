"""One profile for all properties: the same examples at every run, no limit on one example's time."""

from hypothesis import settings

settings.register_profile("reflux", deadline=None, derandomize=True)
settings.load_profile("reflux")
