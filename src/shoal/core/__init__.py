"""Population based training without the world: no clock, file, thread, logger or global state."""
