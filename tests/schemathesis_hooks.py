"""What the fuzzer cannot write by itself: a batch is text, a line a launch."""

import schemathesis


@schemathesis.serializer("application/x-ndjson")
def ndjson(ctx, value):
    return value if isinstance(value, (bytes, str)) else str(value)
