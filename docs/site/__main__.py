"""The documentation as a site that opens from disk: python docs/site site/

Pages are put together in a folder (`pages`, `functions`, `programs`), and Sphinx makes HTML of it (`conf`). A warning,
such as of a link that leads nowhere, ends it with exit code 1.
"""

import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import functions
import pages
import programs
from sphinx.cmd.build import main as sphinx

if __name__ == "__main__":
    out = Path(sys.argv[1])
    shutil.rmtree(out, ignore_errors=True)
    with TemporaryDirectory() as folder:
        for name, content in (pages.files() | functions.files() | programs.files()).items():
            path = Path(folder) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        words = ["-b", "html", "--fail-on-warning", "--keep-going", "--nitpicky", "--quiet"]
        words += ["-c", str(Path(__file__).parent), "-d", str(Path(folder) / ".doctrees")]
        code = sphinx([*words, folder, str(out)])
    if code == 0:
        print(f"{out / 'index.html'} is ready.")
    sys.exit(code)
