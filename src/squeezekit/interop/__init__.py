"""Other people's files: networks in and out."""
