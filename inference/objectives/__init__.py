"""Objectives, one a file: variational bounds and adversarial objectives."""
