-- For wrk: a connection of its own for each request.
wrk.headers["Connection"] = "close"
