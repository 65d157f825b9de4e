"""Data sets and checkpoints that the project makes itself; the rest knows them by name, through YAML and manifests."""
