"""Compares speed and size of squeezekit and other runtimes, from a file to an answer."""
