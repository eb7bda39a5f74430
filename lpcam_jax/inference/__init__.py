"""Every picture at every scale through a network, of any system."""
