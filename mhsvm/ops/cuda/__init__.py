"""CUDA C++ compiled at run time: NVRTC of torch's own wheels, the driver, and machine code kept on disk.

`nvrtc` finds and calls the compiler, `driver` loads and launches, `cubins` keeps machine code, and `kernels` joins the
three.
"""
