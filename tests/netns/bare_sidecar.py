"""The sidecar, started as its own user with no capability: what `runAsUser` and `capabilities.drop: [ALL]` make of it.

Python itself may be where only root can read it, so that user cannot start it; it becomes the user once all is loaded.
"""

import ctypes
import sys

import weir_sidecar.__main__ as program
from weir_sidecar.edge import privileges

if __name__ == "__main__":
    assert ctypes
    privileges.drop(15801, 15801, keep=())
    sys.exit(program.main())
