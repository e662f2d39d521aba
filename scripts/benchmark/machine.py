"""The machine that is measured, in words."""

import re
from pathlib import Path


def processors():
    """The name of each core's processor."""
    return re.findall(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text()) or ["unknown processor"]


def machine():
    """Processors and memory."""
    names = processors()
    memory = int(re.search(r"MemTotal:\s*(\d+)", Path("/proc/meminfo").read_text())[1]) / 1e6
    return f"{len(names)} × {names[0]}, {memory:.0f} GB of memory"
