"""DeepLab: segmentation networks, trained from masks."""
