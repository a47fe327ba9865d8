"""What the machine and its other processes are and do; knows no run."""
