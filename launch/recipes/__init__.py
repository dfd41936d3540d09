"""Recipes: functions, decorated by `recipe`, that return a pair of networks, a loss and settings."""
