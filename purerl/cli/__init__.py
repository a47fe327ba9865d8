"""The command line: turns words into a call of the library, and its result into lines."""
