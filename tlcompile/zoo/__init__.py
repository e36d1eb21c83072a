"""Name -> module, input size, preprocessing, weights, licence."""
