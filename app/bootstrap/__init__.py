"""The parts put together: the only place that knows every one of them, and that reads settings.

    service            what there is, in which order it starts and stops
    database           which database it is, and the local one where none is named
    authentication     who may do what: keys, tokens, pages, addresses
    outbox             PostgreSQL to process: receipts, tail, listener, archive
    gateway            process to client: endpoints, limits, the server around them
    endpoints          what is asked over HTTP
    scheduling         what is done again and again
    report             what health and the heartbeat tell
    collector          how Python's collector keeps nobody waiting

Concurrency   `Service.start` and `stop` run in the lifespan; the others make parts and start nothing.
Never         a part is made, or a setting read, at import; a part gets the settings instead of plain values.
May import    everything but app.main. `service` imports the others, and they not each other.
"""
