"""Training in the span of the data, and its reference in the filters' own coordinates."""
