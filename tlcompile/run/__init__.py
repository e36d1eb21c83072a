"""Entry points. With hydra_plugins/ the only place that imports hydra."""
