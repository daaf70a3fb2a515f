"""Networks, and how they are trained: read README.md first."""
