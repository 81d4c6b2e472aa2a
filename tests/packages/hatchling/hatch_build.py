import subprocess
import sys
import tempfile
from pathlib import Path

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CMakeBuildHook(BuildHookInterface):
    def initialize(self, version, build_data):
        self.build = tempfile.TemporaryDirectory()
        python = f"-DPython_EXECUTABLE={sys.executable}"
        subprocess.run(["cmake", "-G", "Ninja", "-S", self.root, "-B", self.build.name, python], check=True)
        subprocess.run(["cmake", "--build", self.build.name], check=True)
        for module in Path(self.build.name).glob("_demo.*.so"):
            build_data["force_include"][str(module)] = f"demo/{module.name}"
        build_data["pure_python"] = False
        build_data["infer_tag"] = True

    def finalize(self, version, build_data, artifact_path):
        self.build.cleanup()
