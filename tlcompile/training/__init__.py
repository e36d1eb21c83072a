"""Numbers go down. Flat arguments, never a Recipe."""
