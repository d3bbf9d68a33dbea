"""The training loop: one step of every player, and what it needs."""
