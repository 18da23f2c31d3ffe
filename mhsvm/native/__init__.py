"""UltraLight VM-UNet in C: the source, its library for this machine, and calls of it on arrays."""
