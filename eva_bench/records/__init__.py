"""Records of runs: schema, store, claims, environment, and the mirror in W&B."""
