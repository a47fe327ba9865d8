"""The stages of the visit, in order of value."""

from visiting.stage import Stage

STAGES: list[Stage] = []
