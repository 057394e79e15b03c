"""Settings of the whole suite."""

from hypothesis import settings

# A busy machine is no failure: no test here measures time.
settings.register_profile("tercet", deadline=None, print_blob=True)
settings.load_profile("tercet")
