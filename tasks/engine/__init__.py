"""What a stage is, and how one is planned, run once in a process of its own, repaired and recorded. Imports the
config of every stage, and no code of any: that is imported by name when the stage runs."""
