"""Takes saved policies out of a run and acts with them. It never writes into a checkpoint."""
