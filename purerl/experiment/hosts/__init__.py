"""The machine and the processes: signals, memory, cores, other processes.

Nothing here reads a run or its config. Importing the folder imports nothing.
"""
