"""Where images come from: class folders, and the built-in digits."""
