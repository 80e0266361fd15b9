"""MIM4D (arXiv 2403.08760): masked frames of a clip, rendered from the volumes that are lifted from what is left."""
