"""`python -m purerl`: the same as the command `purerl`."""

import contextlib
import os
import sys

if __name__ == "__main__":
    # Python puts the current directory first, where a stranger's module may have any name.
    with contextlib.suppress(OSError):  # it is not there any more
        if not sys.flags.safe_path and sys.path[0] in ("", os.getcwd()):
            del sys.path[0]
    from purerl.cli.main import main

    main()
