"""Speed as ratios against named baselines; read README.md."""
