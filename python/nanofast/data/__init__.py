"""Getting data in, and looking at it: each module here is one way, also as `python -m nanofast.data …`."""
