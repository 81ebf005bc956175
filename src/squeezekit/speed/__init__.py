"""How fast and how small the ways from a file to an answer are: ours and the other runtimes'."""
