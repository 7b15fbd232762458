"""A step of training beside MMSegmentation's: tools/benchmark.py train, losses.

``stock`` builds the network of a config from MMSegmentation's own parts,
``networks`` trains it and ours, ``loss_paths`` runs their loss paths alone;
``contest`` lets contenders take turns, each in a process (``worker``) or all in
this one, ``report`` shows the figures, ``command`` reads the command line.
"""
