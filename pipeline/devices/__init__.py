"""What is asked of a device besides arithmetic: `streams` holds every stream and event, `numerics` every switch."""
