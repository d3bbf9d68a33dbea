"""Adversarial inference: a critic estimates the density ratios that no density gives."""
