"""What fine-tuning did to a model: one probe a file, all on merged float32 weights against the original ones."""
