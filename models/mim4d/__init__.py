"""Masked multi-view video, rendered (MIM4D, arXiv 2403.08760; of one frame UniPAD, arXiv 2310.08370)."""
