"""Robot control with Meta-World: seeded environments, scripted experts, rollouts. No torch here."""
