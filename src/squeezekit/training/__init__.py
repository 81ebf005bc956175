"""Training: recipes, batches and the one loop for dense, masked and shared networks."""
