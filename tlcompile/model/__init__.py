"""What the user gets: a module, its weights with their origin, and the bundle on disk."""
