"""Design-space exploration: which network and which compression pay for what one has to spend."""
