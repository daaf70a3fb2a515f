"""The command lines; each imports what it needs when it is called."""
