"""Says what will be trained, and refuses what cannot be trained before anything compiles.

Leaves are NumPy: nothing here starts a backend or opens a file.
"""
