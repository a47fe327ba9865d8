"""What the machine and its other processes are and do: signals, memory, cores, peers.

Nothing here knows a run. Importing the folder imports nothing.
"""
