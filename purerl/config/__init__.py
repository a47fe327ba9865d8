"""Says what will be trained, and refuses what cannot be, without a backend, file or compiler."""
