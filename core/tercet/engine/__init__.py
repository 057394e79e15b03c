"""The engine: one process, one device, many models."""
