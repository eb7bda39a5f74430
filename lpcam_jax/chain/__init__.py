"""Chains: systems in a row, from image-level labels to a segmentation network, run by one command."""
