"""A picture that is drawn while somebody watches."""

import io

SIZE = (640, 400)
COARSEST = 16
"""Pixels to a square, in the first sketch."""


def drawn(progress: float) -> bytes:
    """A PNG of hills under a sun: coarse at first, whole at 1.0."""
    from PIL import Image, ImageDraw  # noqa: PLC0415 - of the extra `files`

    image = Image.linear_gradient("L").resize(SIZE)
    picture = Image.merge("RGB", [image.point(lambda v, t=tone: t + v * (240 - t) // 255) for tone in (60, 110, 190)])
    draw = ImageDraw.Draw(picture)
    draw.ellipse((430, 50, 530, 150), fill=(255, 214, 102))
    draw.ellipse((-200, 240, 420, 620), fill=(66, 122, 91))
    draw.ellipse((220, 280, 860, 640), fill=(46, 98, 74))
    if progress < 1:
        squares = max(1, round(COARSEST * (1 - progress)))
        picture = picture.resize((SIZE[0] // squares, SIZE[1] // squares)).resize(SIZE, Image.Resampling.NEAREST)
    made = io.BytesIO()
    picture.save(made, "PNG")
    return made.getvalue()
