"""Systems: one folder each, with the same file names in all: system, config, network, training, and what it makes."""
