"""Build wheel and sdist into dist/, install each into a fresh environment, and use the library there: `make dist`.

Both are built from a copy of what belongs to the repository, so that no file of an earlier build gets in. A fresh
environment has the library alone; its dependencies are read from the environment that runs this script, by a line in a
`.pth` file: another copy of PyTorch would take minutes and show nothing new. (The editable installation of that
environment is not seen: its own `.pth` file is not read from there.)
"""

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DIST = ROOT / "dist"
BUILD = "import sys, setuptools.build_meta as backend; getattr(backend, sys.argv[1])(sys.argv[2])"


def main():
    """Build, compare and use both distributions; fail with the output of what failed."""
    shutil.rmtree(DIST, ignore_errors=True)
    DIST.mkdir()
    with tempfile.TemporaryDirectory() as place:
        place = Path(place)
        source = copy_of_the_repository(place / "source")
        run(sys.executable, "-c", BUILD, "build_sdist", DIST, cwd=source)
        run(sys.executable, "-c", BUILD, "build_wheel", DIST, cwd=copy_of_the_repository(place / "again"))
        (sdist,), (wheel,) = DIST.glob("*.tar.gz"), DIST.glob("*.whl")

        with tarfile.open(sdist) as archive:
            safe = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}  # since Python 3.11.4
            archive.extractall(place / "unpacked", **safe)
        rebuilt_in = place / "rebuilt"
        rebuilt_in.mkdir()
        run(sys.executable, "-c", BUILD, "build_wheel", rebuilt_in, cwd=next((place / "unpacked").iterdir()))
        (rebuilt,) = rebuilt_in.glob("*.whl")
        if names(wheel) != names(rebuilt):
            sys.exit(f"The sdist builds another wheel: {sorted(names(wheel) ^ names(rebuilt))}")
        if strangers := [name for name in names(wheel) if not name.startswith(("sklowrank/", "sklowrank-"))]:
            sys.exit(f"The wheel has what does not belong to it: {strangers}")

        for what, file in (("wheel", wheel), ("sdist", rebuilt)):
            print(f"{what}: {DIST / (wheel if what == 'wheel' else sdist).name}", flush=True)
            python = fresh_environment(place / what, file)
            run(python, "-I", ROOT / ".ci" / "smoke.py", cwd=place, show=True)


def copy_of_the_repository(folder):
    """Return a folder with the files that git knows or would add."""
    listed = subprocess.run(
        ["git", "-C", ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


def names(wheel):
    """Return the files in a wheel."""
    return set(zipfile.ZipFile(wheel).namelist())


def fresh_environment(folder, wheel):
    """Return the Python of a new environment in which a wheel is installed, and beside it our dependencies."""
    venv.create(folder, with_pip=False, symlinks=os.name != "nt")
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    site = Path(
        subprocess.check_output(
            [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], text=True
        ).strip()
    )
    run(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index", wheel)
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


def run(*command, cwd=None, show=False):
    """Run a command; end this program with its output where it fails."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([*map(str, command)], cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    if show and not done.returncode:
        print(done.stdout, end="", flush=True)
    if done.returncode:
        sys.exit(f"failed: {' '.join(map(str, command))}\n{done.stdout}{done.stderr}")


if __name__ == "__main__":
    main()
