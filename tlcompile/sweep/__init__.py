"""Many recipes at once. Knows nothing of hydra."""
