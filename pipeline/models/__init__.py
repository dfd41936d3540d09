"""Networks by name, their weights, and taps into their features."""
