"""What a program is fitted by: variational bounds and adversarial objectives, one a file."""
