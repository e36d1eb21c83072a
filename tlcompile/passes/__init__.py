"""One pass, one file, one name, one test. `plan.py` has the whole order on one screen."""
