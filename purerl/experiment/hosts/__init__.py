"""The machine and the processes: nothing here reads a run or its config."""
