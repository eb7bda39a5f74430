"""Systems, one folder each, with the modules system, config, network and training; beside them, what several share."""
