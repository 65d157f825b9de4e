"""The small worlds that generated texts and images are about."""
