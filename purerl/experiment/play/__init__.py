"""Takes saved policies out of a run and acts with them."""
