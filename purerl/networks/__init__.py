"""Maps one observation to a distribution or a value, and holds what training carries of that.

There is no loss here and no batch.
"""
