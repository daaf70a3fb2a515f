"""Generators of faithful synthetic images, behind one small interface: see `base`."""
