"""The machine: files, cores, devices, processes, signals."""
