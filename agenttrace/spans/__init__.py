"""Spans: our own lean ones, and other libraries' that we adopt.

`lean` and `tracer` make spans, `provider` is the OTel `TracerProvider` they come from,
`adopted` and `attached` watch the spans of a provider that is not ours.  What becomes
of an ended span is not decided here: it is handed to a sink.
"""
