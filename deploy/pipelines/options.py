"""The options that the pipelines are compiled with: options.yaml, and a file that changes some of its keys."""

import pathlib

import yaml

FOLDER = pathlib.Path(__file__).resolve().parent
DEFAULTS = FOLDER / "options.yaml"

# Tables whose keys are the user's own.
OPEN = ("nodeSelector", "gpu.nodeSelector", "podLabels", "podAnnotations", "env")


class Wrong(Exception):
    """A file of options that is not accepted, and why."""


def read(path=None):
    """The defaults, with what the file at `path` changes.

    Raises Wrong for a file that is not YAML, an unknown key and a value of another type, each by its path.
    """
    options = yaml.safe_load(DEFAULTS.read_text())
    if path is None:
        return options
    try:
        own = yaml.safe_load(pathlib.Path(path).read_text()) or {}
    except (OSError, yaml.YAMLError) as error:
        raise Wrong(f"cannot read {path}: {error}") from error
    if not isinstance(own, dict):
        raise Wrong(f"{path}: a table of options is expected, such as `image: saker:1.2.0`")
    return merged(options, own, str(path))


def merged(defaults, own, where, prefix=""):
    """`defaults` with the keys of `own`; `prefix` is the path of both."""
    result = dict(defaults)
    for key, value in own.items():
        path = f"{prefix}{key}"
        if key not in defaults:
            raise Wrong(f"{where}: {path} is no option; there are {', '.join(defaults)}")
        default = defaults[key]
        if isinstance(default, dict) and isinstance(value, dict):
            result[key] = value if path in OPEN else merged(default, value, where, f"{path}.")
        elif is_like(default, value):
            result[key] = value
        else:
            wanted = "a table" if isinstance(default, dict) else f"a value like {default!r}"
            raise Wrong(f"{where}: {path} is {value!r}; {wanted} is expected")
    return result


def is_like(default, value):
    """Whether a value has its default's type; a whole number is a number, too."""
    if isinstance(default, float):
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return type(value) is type(default)
