"""Data sets and models: manifests, identities, downloads."""
