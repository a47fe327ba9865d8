"""Networks of one observation, and the form in which training carries them.

There is no loss here and no batch.
"""
