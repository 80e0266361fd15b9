"""`geomim view`: a page, served on this machine alone, to walk through artifacts' samples."""
