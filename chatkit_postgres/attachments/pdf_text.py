"""Extracts the text of a PDF, as a program: ``python pdf_text.py MAX_CHARACTERS <file >text``.

A PDF can consume any amount of time and memory, so it is parsed in its own process, with resource limits of the
operating system. The program imports nothing of our package.
"""

import contextlib
import io
import sys

MEMORY_BYTES = 1024 * 1024 * 1024
CPU_SECONDS = 5


def limit_this_process() -> None:
    with contextlib.suppress(ImportError, ValueError, OSError):
        # Not on Windows.
        import resource  # noqa: PLC0415

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def main() -> int:
    limit_this_process()
    from pypdf import PdfReader  # noqa: PLC0415 - after the limits

    max_characters = int(sys.argv[1])
    document = PdfReader(io.BytesIO(sys.stdin.buffer.read()))
    written = 0
    for page in document.pages:
        text = page.extract_text()[: max_characters - written]
        written += len(text) + 1
        sys.stdout.buffer.write(text.encode(errors="replace") + b"\n")
        if written >= max_characters:
            break
    return 0


if __name__ == "__main__":
    sys.exit(main())
