"""Says what will be trained and refuses what cannot be, before anything compiles."""
