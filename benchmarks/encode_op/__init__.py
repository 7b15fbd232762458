"""The Encoding operator beside MMSegmentation's: tools/benchmark.py op.

``command`` reads the command line, ``contenders`` says what is compared and
that it agrees, ``timing`` and ``memory`` measure it, ``report`` shows the
figures.
"""
