"""A guided run of the service in a terminal: `make demo`, or `python -m demo`.

    __main__.py   the order of things: database, migrations, server, story, and all of it back again
    options.py    what the three commands share: port, folder, the environment of child processes
    server.py     the child processes: alembic, and the real uvicorn
    stops.py      Ctrl-C, noted at any time and raised where the demo waits
    host.py       plays MindVibe's main API: plain SQL on its own tables, nothing else
    client.py     plays an app: a WebSocket that notes when each message arrived
    story.py      the run itself; it fails when what it shows did not happen
    terminal.py   how it is printed
    write.py      `python -m demo.write`: write a row while the demo is up
    watch.py      `python -m demo.watch`: watch as a client while the demo is up

Never         the developer's database: the demo has a folder of its own and takes no setting from outside.
"""
