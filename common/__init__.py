"""What every room may use: errors, settings, progress, cores, files read patiently. Imports no other room."""
