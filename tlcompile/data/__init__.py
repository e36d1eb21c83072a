"""Folders, the bundled digits, named data sets, image checks, augmentation, splits."""
