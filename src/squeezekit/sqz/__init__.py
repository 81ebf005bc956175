"""The `.sqz` file and the network it holds; nothing here imports torch."""
