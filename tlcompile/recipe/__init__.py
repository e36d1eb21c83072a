"""What the user asked for. The only place that knows YAML and Pydantic."""
