"""What concerns the device and not the data or the networks on it."""
