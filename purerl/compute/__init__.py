"""Makes a given computation fast on a given machine.

It takes any function or tree, and knows no policy, environment, config or metric.
"""
