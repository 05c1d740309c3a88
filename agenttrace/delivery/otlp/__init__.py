"""Spans as OTLP bytes and back: the one encoding that spool, wire and store share.

`encode` and `frame_of` write protobuf by hand, because building message objects costs
seven times as much as the bytes they end in, and the time is taken from the
application's interpreter.  Neither imports protobuf; `decode` does, when first called.

Nothing here decides when or where to send.  Cleaning values is `attributes`' business;
what comes here unclean all the same is repaired, counted, and sent.
"""

from agenttrace.delivery.otlp.decoder import decode
from agenttrace.delivery.otlp.encoder import encode, frame_of

__all__ = ["decode", "encode", "frame_of"]
