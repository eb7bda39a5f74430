"""Saliency maps without another program: U2-Net, its published weights, and pictures through it."""
