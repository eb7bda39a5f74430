"""UperNet: a segmentation network on a Swin transformer or any other backbone, trained on masks."""
