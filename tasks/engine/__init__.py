"""What a stage is, and how one is planned, run once in a process of its own, repaired and recorded. Imports every
stage's config, and no function that does its work: that one is imported by name when the stage runs."""
