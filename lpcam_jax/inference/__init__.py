"""Inference of any system: every picture at every scale through a network."""
