"""Takes ended spans from the application's threads and brings them to a backend.

One way through: `queue -> spooler -> otlp.encode -> Frame -> Sender`.  A span is
encoded once; what a sender is given are those bytes.  Between frame and sender stands
the spool, in memory; before it, the write-ahead log: `WriteAhead -> Segments -> files`.
"""
