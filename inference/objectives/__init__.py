"""What a program is fitted by: variational bounds and adversarial games, one objective a file."""
