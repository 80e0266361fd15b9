"""What networks are fed: images, points, depth targets, maps, voxels and boxes of a sample, augmented and batched."""
