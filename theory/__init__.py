"""Every result of the paper as a closed form; standard library, numpy and scipy only."""
