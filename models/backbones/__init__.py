"""Camera backbones behind one protocol (`backbone`), each built from a frozen config (`config`)."""
