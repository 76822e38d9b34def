"""A run's folder: how it begins and goes on, checkpoints, log."""
