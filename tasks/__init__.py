"""What is asked of a model: one module per task family."""
