"""The steps of tools/demo.py."""
