"""The method on real images: slow examples, generation, training, comparison."""
