"""git, asked from outside: about one folder alone, and without stopping at a question."""

import os
import subprocess
from pathlib import Path

# What a calling git (a hook, say) tells its children; it would redirect ours to another repository.
LOCAL_VARIABLES = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_COMMON_DIR", "GIT_PREFIX")


def git(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run git in `folder`, never in a repository around it; output is captured, a failure is the caller's to read.

    A folder of another user, as in a container, is read all the same ("dubious ownership"), and a server that asks
    for a password is a failure. Raises FileNotFoundError where there is no git.
    """
    environment = {name: value for name, value in os.environ.items() if name not in LOCAL_VARIABLES}
    environment |= {"GIT_CEILING_DIRECTORIES": str(folder.resolve().parent), "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    # No program that the folder's own configuration names is run.
    settings = ["-c", "safe.directory=*", "-c", "core.fsmonitor=false"]
    command = ["git", *settings, "-C", str(folder), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL)
