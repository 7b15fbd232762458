"""What the benchmarks share: command line, clocks, memory of a process."""
