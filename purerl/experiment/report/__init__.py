"""Statistics, figures and files of finished runs: nothing is trained, no weights are loaded."""
