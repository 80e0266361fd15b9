"""What holds for all tests."""

from hypothesis import settings

# A busy machine is no fault of the code's: hangs end by pytest's own timeout.
settings.register_profile("geomim", deadline=None)
settings.load_profile("geomim")
