"""Where teacher outputs come from."""
