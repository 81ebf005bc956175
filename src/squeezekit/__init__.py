"""squeezekit: train a small image classifier, shrink it, ship it anywhere."""
