"""Stages `finetune` and `evaluate`: a camera network learns boxes, maps or voxels, predicts and is scored."""
