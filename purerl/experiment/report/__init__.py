"""Numbers and figures of runs, from arrays alone: nothing is trained, no weights are loaded."""
