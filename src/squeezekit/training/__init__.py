"""Training: recipes, batches, and one loop for dense, masked and shared networks."""
