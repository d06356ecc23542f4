"""Where files are stored and which are accepted."""

from importlib.util import find_spec

from chatkit_postgres.attachments.intake import FileLimits
from chatkit_postgres.attachments.kinds import AcceptedTypes
from chatkit_postgres.attachments.storage import NoStorage, Storage
from chatkit_postgres.settings import ConfigurationError, Settings

CHARACTERS_PER_TOKEN = 4
PACKAGES = {"obstore": "obstore", "PIL": "pillow", "puremagic": "puremagic", "pypdf": "pypdf"}
"""Modules of the extra `files`, and the packages that bring them."""


def file_storage(settings: Settings) -> Storage:
    """Where the bytes of attachments are. Raises ConfigurationError if it cannot be written."""
    missing = [package for module, package in PACKAGES.items() if find_spec(module) is None]
    if missing and settings.attachment_types == ():
        return NoStorage()
    if missing:
        raise ConfigurationError(
            [f"CHAT_ATTACHMENT_TYPES: files need {', '.join(missing)}. Install them, or set it to none."]
        )
    from obstore.exceptions import BaseError

    from chatkit_postgres.attachments.object_storage import Bucket, ObjectStorage

    if settings.storage_url is not None:
        name, _, prefix = settings.storage_url.removeprefix("s3://").partition("/")
        secret, token = settings.aws_secret_access_key, settings.aws_session_token
        bucket = Bucket(
            name=name,
            prefix=prefix.strip("/") or None,
            endpoint=settings.aws_endpoint_url,
            region=settings.aws_region,
            access_key_id=settings.aws_access_key_id,
            secret_access_key=secret.get_secret_value() if secret is not None else None,
            session_token=token.get_secret_value() if token is not None else None,
        )
        try:
            return ObjectStorage.in_bucket(bucket)
        except BaseError as error:
            raise ConfigurationError([f"CHAT_STORAGE_URL: {type(error).__name__}."]) from None
    directory = settings.data_dir.resolve() / "attachments"
    try:
        return ObjectStorage.in_directory(directory)
    except OSError as error:
        problem = f"CHAT_DATA_DIR: cannot write {directory}: {error.strerror}. Or set CHAT_STORAGE_URL."
        raise ConfigurationError([problem]) from error


def file_limits(settings: Settings) -> FileLimits:
    return FileLimits(
        max_bytes=settings.max_attachment_bytes,
        max_pixels=settings.max_image_pixels,
        max_unsent=settings.max_unsent_attachments,
        accepted=AcceptedTypes(settings.attachment_types),
        text_characters=settings.file_tokens * CHARACTERS_PER_TOKEN,
        max_images=settings.model_images,
    )
