"""Strength and k by rule before the images are made, and the grid that the rule is tested on."""
