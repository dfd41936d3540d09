"""What every part may use and what uses no part: randomness, errors, configuration, logging, processes."""
