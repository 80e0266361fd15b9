"""Camera backbones of one kind (`backbone`), each built from a frozen config (`config`)."""
