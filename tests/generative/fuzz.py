"""Look for what breaks a claim: `python -m tests.generative.fuzz [--seconds 30] [CLAIM …]`.

Guided by coverage where atheris is installed (`pip install atheris`), else by Hypothesis alone.
Each claim has its share of the seconds, in a process of its own.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

_INPUT_BYTES_MAX: Final = 4_096
_SLOW_SECONDS: Final = 5


def main() -> int:
    """Run each claim; return how many are broken."""
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m tests.generative.fuzz")
    parser.add_argument("--seconds", type=float, default=30.0, help="for all claims together")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("claims", nargs="*", metavar="CLAIM")
    options = parser.parse_args()
    if options.inside:
        _fuzz(options.claims[0], options.seconds)
        return 0
    guided = _has_atheris()
    if not guided:
        print("atheris is not installed (pip install atheris): Hypothesis alone, without coverage")
    from .claims import CLAIMS

    names = options.claims or list(CLAIMS)
    unknown = sorted(set(names) - set(CLAIMS))
    if unknown:
        parser.error(f"no such claim: {', '.join(unknown)}; there are {', '.join(CLAIMS)}")
    share = options.seconds / len(names)
    broken = [name for name in names if not _run(name, share, guided=guided)]
    print(f"{len(names) - len(broken)} of {len(names)} claims hold", *broken)
    return len(broken)


def _has_atheris() -> bool:
    try:
        import atheris  # noqa: F401
    except ImportError:
        return False
    return True


def _run(name: str, seconds: float, *, guided: bool) -> bool:
    """Run one claim in a process of its own; print what it did, and what broke it."""
    if not guided:
        return _search(name, seconds)
    command = [sys.executable, "-m", __spec__.name, "--inside", "--seconds", str(seconds), name]
    done = subprocess.run(command, capture_output=True, text=True, check=False, errors="replace")
    executions = (re.findall(r"^#(\d+)\t", done.stderr, re.MULTILINE) or ["?"])[-1]
    covered = (re.findall(r"cov: (\d+)", done.stderr) or ["?"])[-1]
    print(f"{name}: {executions} executions, {covered} branches covered, exit {done.returncode}")
    if done.returncode != 0:
        print(done.stdout[-6_000:], done.stderr[-3_000:], sep="\n")
    return done.returncode == 0


def _fuzz(name: str, seconds: float) -> None:
    """Let libFuzzer mutate the seeds; ends the process."""
    import atheris

    with atheris.instrument_imports(include=["paynexus_async", "json", "email"]):
        from .claims import CLAIMS

    claim, seeds = CLAIMS[name]
    with tempfile.TemporaryDirectory() as folder:
        for number, seed in enumerate(seeds):
            (Path(folder) / str(number)).write_bytes(seed)
        words = Path(folder) / "words.dict"
        words.write_text("".join(f'"{word}"\n' for word in _words(seeds)))
        arguments = [
            f"-max_total_time={max(int(seconds), 1)}",
            f"-max_len={_INPUT_BYTES_MAX}",
            f"-timeout={_SLOW_SECONDS}",
            f"-dict={words}",
            "-artifact_prefix=/dev/null",
            folder,
        ]
        atheris.Setup([sys.argv[0], *arguments], claim)
        atheris.Fuzz()


def _words(seeds: tuple[bytes, ...]) -> list[str]:
    from .test_parsers import WORDS

    found = {w for seed in seeds for w in re.findall(rb"[A-Za-z0-9_+-]{3,}", seed)}
    texts = {w.decode() for w in found} | {w for w in WORDS if w.isascii() and len(w) < 60}
    return sorted("".join(c if c not in '\\"' else "" for c in text) for text in texts)


def _search(name: str, seconds: float) -> bool:
    from hypothesis import HealthCheck, given, settings
    from hypothesis import strategies as st

    from .claims import CLAIMS
    from .test_parsers import spoiled_bytes, spoiled_json

    claim, seeds = CLAIMS[name]
    spoiled = st.sampled_from(seeds).flatmap(lambda seed: spoiled_bytes(seed) | spoiled_json(seed))
    executions, ends_at = 0, time.monotonic() + seconds

    @settings(
        max_examples=1_000, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(data=st.binary(max_size=_INPUT_BYTES_MAX) | spoiled)
    def search(data: bytes) -> None:
        nonlocal executions
        executions += 1
        claim(data)

    try:
        while time.monotonic() < ends_at:
            search()
    except Exception as error:  # noqa: BLE001  # whatever breaks the claim
        print(f"{name}: broken after {executions} executions", repr(error), *error.__notes__)
        return False
    print(f"{name}: {executions} executions")
    return True


if __name__ == "__main__":
    sys.exit(main())
