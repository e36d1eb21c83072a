"""Every message that a user can see, one class each; base.py has the tree and the form."""
