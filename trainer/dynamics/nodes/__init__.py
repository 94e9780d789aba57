"""The neural masses, one file per family; importing the package registers them all."""
