"""The machine and the processes: signals, memory, cores, other processes.

Nothing here knows a run. Importing the folder imports nothing.
"""
