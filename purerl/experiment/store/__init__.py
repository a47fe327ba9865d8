"""What a run directory holds, written whole and checked when read; executes nothing that a file names."""
