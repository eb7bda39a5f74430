"""DeepLab: segmentation networks, trained on masks."""
