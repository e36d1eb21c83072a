"""Who follows a run beside metrics.csv: events.jsonl always, TensorBoard, MLflow, W&B by name."""
