from demo._demo import cublas, run, runtime

__all__ = ["cublas", "run", "runtime"]
