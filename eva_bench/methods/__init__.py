"""The contract of a method, the one low-rank layer, truncated SVD and the export to PEFT."""
