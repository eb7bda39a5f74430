"""Pretrained parameters from the torch world, without torch: files, names, and the network filled from them."""
