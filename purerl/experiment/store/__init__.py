"""The files of a run directory: written whole, checked when read; nothing they name is run."""
