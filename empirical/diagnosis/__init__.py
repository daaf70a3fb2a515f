"""How faithful synthetic images are, in the terms of theory/family.md: read README.md first."""
