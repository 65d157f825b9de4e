"""The pocket models: small, pretrained here, committed with a manifest."""
