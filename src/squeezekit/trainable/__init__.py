"""A network's graph as a torch module, and so any network trainable again."""
