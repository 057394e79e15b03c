"""Settings of the whole suite."""

import signal

from hypothesis import settings

# A busy machine is no failure: no test here measures time.
settings.register_profile("tercet", deadline=None, print_blob=True)
settings.load_profile("tercet")

# A shell that starts this in its background has it ignore Ctrl-C, and so would the processes that tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)
