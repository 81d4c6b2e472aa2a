from cuda.demo._demo import runtime

__all__ = ["runtime"]
