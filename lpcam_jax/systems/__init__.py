"""Systems, one folder each; all have the modules system, config, network and training, and one for their results."""
