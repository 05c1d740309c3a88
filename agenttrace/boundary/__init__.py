"""Where traced code meets untraced code: one operation, one `Call`, one ending.

The shapes an operation can have are known here and nowhere else: a plain call and a
coroutine (`call`), a generator and an async generator (`generators`), a library's own
stream (`streams`).  What is read from arguments, items and results is a recorder's
business; where the span goes is `tracing`'s.
"""
