"""From pictures and labels to a checkpoint: the classifier, then the prototypes; the segmentation network."""
