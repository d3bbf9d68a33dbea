"""What a program is and what a draw of it is worth: log densities, bounds, checks and predictions."""
