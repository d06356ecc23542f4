"""Makes a preview of an image, as a program: ``python image_preview.py MAX_PIXELS MAX_SIDE <file >preview``.

The output is a line with the detected type, and then a PNG or a JPEG that contains only the pixels. Even a small file
can consume any amount of time and memory, so it is decoded in its own process, with resource limits of the operating
system. The program imports nothing of our package.
"""

import contextlib
import io
import sys

MEMORY_BYTES = 2 * 1024 * 1024 * 1024
CPU_SECONDS = 10

FORMATS = {"PNG": "image/png", "JPEG": "image/jpeg", "GIF": "image/gif", "WEBP": "image/webp"}
TOO_MANY_PIXELS = 3
"""The exit code for an image over MAX_PIXELS."""


def limit_this_process() -> None:
    with contextlib.suppress(ImportError, ValueError, OSError):
        # Not on Windows.
        import resource  # noqa: PLC0415

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def main() -> int:
    limit_this_process()
    from PIL import Image, ImageOps  # noqa: PLC0415 - after the limits

    max_pixels, max_side = int(sys.argv[1]), int(sys.argv[2])
    made = io.BytesIO()
    with Image.open(io.BytesIO(sys.stdin.buffer.read()), formats=list(FORMATS)) as image:
        # The size is in the header; nothing is decoded yet.
        if image.width * image.height > max_pixels:
            return TOO_MANY_PIXELS
        image.draft("RGB", (max_side, max_side))
        upright = ImageOps.exif_transpose(image)
        if upright.mode.startswith("I"):
            # 16 bits of grey.
            upright = upright.convert("I").point(lambda value: value / 256).convert("L")
        upright.thumbnail((max_side, max_side))
        if upright.has_transparency_data:
            upright.convert("RGBA").save(made, "PNG")
        else:
            upright.convert("RGB").save(made, "JPEG", quality=85)
        sys.stdout.buffer.write(FORMATS[str(image.format)].encode() + b"\n" + made.getvalue())
    return 0


if __name__ == "__main__":
    sys.exit(main())
