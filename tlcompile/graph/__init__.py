"""The base model as data. With passes/, the only users of torch.fx."""
