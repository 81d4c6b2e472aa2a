import build_hooks
from setuptools import setup

setup(ext_modules=build_hooks.extensions)
