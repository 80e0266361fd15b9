"""Stage `pretrain`: a camera backbone learns to rebuild the cached BEV features from masked images."""
