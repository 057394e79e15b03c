"""Bodies of requests and answers, shared by client and server: pure functions, no torch, no connection.

Results have two forms: a document of dicts, lists, scalars and numpy arrays, which becomes JSON (or, in the server,
MessagePack), and one Arrow record batch over the result's own buffers. Both are exact: the same bits come back.
"""

JSON = "application/json"
ARROW = "application/vnd.apache.arrow.stream"
