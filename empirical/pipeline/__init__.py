"""Algorithm 1: one run in one folder, or its steps in memory."""
