"""The selective scan on the CPU, compiled by numba when it is first run."""
