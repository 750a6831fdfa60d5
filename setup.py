"""What a wheel holds besides the package: the student's weights, and the sentences of generated speech.

In a clone they lie in weights/ and data/, where ``dccrn_lib.runtime.paths`` finds them; a wheel carries a copy below
``dccrn_lib/shipped/``.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

SHIPPED = ("weights/distil_dccrn.safetensors", "weights/distil_dccrn.json", "data/sentences/*.txt")


class BuildWithShipped(build_py):
    """Copy what is shipped beside the modules; an editable install needs no copy."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        root = Path(__file__).resolve().parent
        for pattern in SHIPPED:
            found = sorted(root.glob(pattern))
            if not found:
                raise FileNotFoundError(f"{pattern}: missing, and a wheel needs it; restore it from the repository")
            for source in found:
                target = Path(self.build_lib, "dccrn_lib", "shipped", source.relative_to(root))
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, target)


setup(cmdclass={"build_py": BuildWithShipped})
