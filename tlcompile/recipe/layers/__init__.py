"""The closed vocabulary of `add`: one class a layer type, as data. Knows nothing of torch."""
