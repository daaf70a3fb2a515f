"""Every setting of a run, its default and what is allowed; nothing heavy is imported."""
