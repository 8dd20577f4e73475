"""The renderer belongs to the library: it knows no orchestration and no command line."""

import subprocess
import sys


def test_importing_phantoms_loads_no_orchestration():
    code = (
        "import sys, wsi_her2.phantom; "
        "bad = {'dask', 'distributed', 'typer', 'pipelines', 'torch'} & set(sys.modules); "
        "sys.exit(str(bad) if bad else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
