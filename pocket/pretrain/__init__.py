"""Pretraining of the pocket models, which are committed in pocket/weights with a manifest."""
