"""The command line. Plain predictions take a short cut; everything else goes through the verbs."""

from __future__ import annotations

import os
import signal
import sys

from squeezekit.cli.output import BAD_INPUT, INTERRUPTED, note
from squeezekit.errors import SqueezekitError
from squeezekit.text import replace_unprintable

__all__ = ["main"]


def main() -> None:
    """Run the command line; a user's mistake is one sentence on stderr and exit code 2."""
    from squeezekit.cli.quick import plainly_asked, predict

    replace_unprintable(sys.stdout, sys.stderr)
    try:
        # SIGTERM, which stops services and batch jobs, acts like Ctrl-C: nothing half written.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        asked = plainly_asked(sys.argv[1:])
        if asked is None:
            from squeezekit.cli.verbs import app

            app()
        else:
            # Decoding threads need Python's lock between tensors, while other threads import.
            sys.setswitchinterval(0.0005)
            predict(**asked)
            sys.stdout.flush()
    except SqueezekitError as error:
        note(f"squeezekit: {error}")
        sys.exit(BAD_INPUT)
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in _EXTRA_OF:
            raise
        needs = f"this needs {missing}: pip install 'squeezekit[{_EXTRA_OF[missing]}]'"
        note(f"squeezekit: {needs}")
        sys.exit(BAD_INPUT)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except BrokenPipeError:  # the reader has closed the pipe; leave nothing to flush at the end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:  # a name that is too long, a disk that went away
        place = (
            f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, (str, bytes)) else ""
        )
        note(f"squeezekit: {place}{error.strerror or error}")
        sys.exit(BAD_INPUT)


_EXTRA_OF = {
    **dict.fromkeys(("torch", "matplotlib", "sklearn", "jinja2", "safetensors"), "train"),
    **dict.fromkeys(("optuna", "sqlalchemy"), "explore"),
    **dict.fromkeys(("aiohttp", "multipart", "prometheus_client"), "serve"),
}
