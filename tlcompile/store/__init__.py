"""Rows found by their fingerprint, in folders that processes share. Knows nothing of models or images."""
