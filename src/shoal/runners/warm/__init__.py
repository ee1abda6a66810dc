"""What runs on the other side: in the user's interpreter, which need not have shoal.

Standard library only, and Python 3.9: see `hook/sitecustomize.py`, where it begins.
"""
