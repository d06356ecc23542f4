"""What is refused at the start, with a sentence that says what to do."""

from typing import Any

from chatkit.store import AttachmentStore

from benchmarks.sample_server import MemoryStore, SampleServer


class Blobs(AttachmentStore[Any]):
    async def delete_attachment(self, attachment_id: str, context: Any) -> None: ...


class OwnFilesServer(SampleServer):
    def __init__(self) -> None:
        super().__init__()
        self.store = MemoryStore()
        self.attachment_store = Blobs()
