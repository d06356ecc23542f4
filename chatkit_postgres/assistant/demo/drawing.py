"""Draws an image in several stages, from a coarse sketch to the finished one."""

import io

SIZE = (640, 400)
COARSEST = 16
"""Pixels of a square's side in the first sketch."""


def drawn(progress: float) -> bytes:
    """A PNG of hills under a sun: coarse at first, whole at 1.0."""
    from PIL import Image, ImageDraw  # noqa: PLC0415 - of the extra `files`

    gradient = Image.linear_gradient("L").resize(SIZE)
    image = Image.merge("RGB", [gradient.point(lambda v, t=tone: t + v * (240 - t) // 255) for tone in (60, 110, 190)])
    draw = ImageDraw.Draw(image)
    draw.ellipse((430, 50, 530, 150), fill=(255, 214, 102))
    draw.ellipse((-200, 240, 420, 620), fill=(66, 122, 91))
    draw.ellipse((220, 280, 860, 640), fill=(46, 98, 74))
    if progress < 1:
        squares = max(1, round(COARSEST * (1 - progress)))
        image = image.resize((SIZE[0] // squares, SIZE[1] // squares)).resize(SIZE, Image.Resampling.NEAREST)
    made = io.BytesIO()
    image.save(made, "PNG")
    return made.getvalue()
