"""What the project asks of a device besides arithmetic; `streams` holds every CUDA stream and event."""
