"""Networks of one observation, without loss or batch, and the form that training carries."""
