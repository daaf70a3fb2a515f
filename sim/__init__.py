"""The paper's data and network, and a check of every claim: read README.md first."""
