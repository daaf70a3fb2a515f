"""Synthetic images on disk for large runs: Parquet shards that Hugging Face `datasets` reads."""
