"""Data sets of images by name, held as uint8 tensors: `empirical.datasets.registry.load`."""
