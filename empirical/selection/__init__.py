"""Which examples are slow, by an early network's outputs."""
