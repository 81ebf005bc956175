"""Making networks small: prune, share and the Deep Compression pipeline; network -> network."""
