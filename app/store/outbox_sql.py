"""The statements that read the outbox, and why they are shaped as they are.

Each is one statement, so that its rows and its snapshot are of one moment (READ COMMITTED takes one snapshot
per statement), and of one incarnation, which is asked for with them or was by the same session. The ids of
the unseen rows are gathered first, in MATERIALIZED parts that use the index on xid: cost follows the unseen
rows. `ORDER BY id LIMIT` beside the conditions on xid would make the planner walk the primary key from its
start.

`not has(seen, row)` is `xid >= xmax or xid = ANY(in_progress)`: both are index conditions.
"""

XIDS_AT_ONCE = 1000
"""How many transactions of its rows a read tells."""
FEW_ROWS = 256
FEW_BYTES = 4096
"""How many rows are few, of up to how many bytes each: a mebibyte in all."""

# The folder of a table's file is named after its database's oid, which the catalogue tells less quickly.
_IDENTITY = """(
               SELECT (pg_control_system()).system_identifier || '/'
                      || split_part(pg_relation_filepath(i.tableoid), '/', -2) || '/'
                      || extract(epoch FROM pg_postmaster_start_time()) || '/' || i.id
               FROM realtime_incarnation AS i)"""
# A server session lies within one incarnation: no backend outlives a crash, and a standby's is never told. So
# what it was told once holds as long as it lives, and the tail need not ask hundreds of times a second.
NOTE_IDENTITY = f"SELECT set_config('realtime.identity', {_IDENTITY}, false)"
_NOTED_IDENTITY = "nullif(current_setting('realtime.identity', true), '')"
_UNFIT = "(pg_is_in_recovery() OR pg_current_xact_id_if_assigned() IS NOT NULL)::int"
_HEAD = f"""
head AS MATERIALIZED (
    SELECT pg_current_snapshot()::text AS snapshot,
           statement_timestamp() AS taken_at,
           {_IDENTITY} AS identity,
           {_UNFIT} AS unfit
)"""

EVENT_MARKS = "((r.room_id IS NOT NULL)::int + 2 * (r.collapse_key IS NOT NULL)::int)::bigint"
"""What must be asked about an event before it is sent: `OF_ROOM` and `COLLAPSIBLE`, added up."""


def sayable(time: str) -> str:
    """A column's time where messages and the driver have one for it, else 1970: a host can write any."""
    return f"CASE WHEN {time} BETWEEN 'epoch' AND '9999-12-31Z' THEN {time} ELSE 'epoch' END"


def microseconds(time: str) -> str:
    """A time as rows bring it to the reader: in microseconds since 1970 (`app/core/moment.py`).

    Whole ones until the year 2100; the further from 1970, the coarser, up to 31 of them.
    """
    return f"(date_part('epoch', {time}) * 1000000)::bigint"


def written_at(row: str) -> str:
    """When a row was created, as far as messages have a time for it."""
    return microseconds(sayable(f"{row}.created_at"))


def created_at(row: str) -> str:
    """The same as a column of a read."""
    return f"{written_at(row)} AS created_at"


_CREATED_AT = created_at("r")
# All of the same types, or each table's rows are projected twice.
_EVENT = (
    "'e'::text AS kind, r.id, r.xid, r.user_id::text, r.event_type::text AS label, r.payload::text AS data,"
    f" {_CREATED_AT}, {EVENT_MARKS} AS ref"
)
_SYNC = (
    "'s'::text AS kind, r.id, r.xid, r.user_id::text, r.action_type::text, r.payload::text,"
    f" {_CREATED_AT}, r.device_id"
)
_COMMAND = (
    "'c'::text AS kind, r.id, r.xid, r.user_id::text, r.kind::text,"
    f" coalesce(r.detail ->> 'generation', r.detail ->> 'revoked_before'), {_CREATED_AT}, r.device_id"
)

# Rows restored from another cluster can have xids of the future; until `adopt_foreign_rows` has seen to
# them, no reader may take them for unseen again and again.
_OURS = "xid < pg_snapshot_xmax(pg_current_snapshot())"

_TABLES = {"e": "realtime_events", "s": "sync_queue", "c": "realtime_commands"}


def _rows(columns: str, kind: str, *, known: bool) -> str:
    only = f"WHERE page.kind = '{kind}'" if known else ""
    return f"""
        SELECT {columns} FROM page
        CROSS JOIN LATERAL (SELECT * FROM {_TABLES[kind]} AS x WHERE x.id = page.id) AS r {only}"""


def _answer(extra: str, *, known: bool, limit_bytes: str, commands: bool) -> str:
    """The head as the first row, then the rows of `page` in id order until they exceed the bytes."""
    parts = [_rows(_EVENT, "e", known=known), _rows(_SYNC, "s", known=known)]
    if commands:
        parts.append(_rows(_COMMAND, "c", known=known))
    return f"""
, found AS ({" UNION ALL ".join(parts)}
), bounded AS (
    SELECT found.*, coalesce(sum(octet_length(data)) OVER earlier, 0) AS bytes_before
    FROM found WINDOW earlier AS (ORDER BY id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
)
SELECT * FROM (
SELECT 'h' AS kind, (SELECT count(*) FROM page) AS id, NULL::xid8 AS xid, snapshot AS user_id,
       identity AS label, {extra} AS data, {microseconds("taken_at")} AS created_at,
       unfit::bigint AS ref FROM head
UNION ALL
SELECT kind, id, xid, user_id, label, data, created_at, ref FROM bounded WHERE bytes_before < {limit_bytes}
) AS answer ORDER BY kind <> 'h', id"""


def _unseen(kind: str, *, mine: str = "", overlap: str | None = None, owed: str | None = None) -> str:
    """Ids of a table's rows that `reading` has ($3, $4) and `seen` ($1, $2) has not, beyond $5."""
    table = _TABLES[kind]
    both = f"{_OURS} AND xid < $3 AND xid <> ALL($4::xid8[]) AND id > $5 {mine}"
    branches = [f"{table} WHERE xid >= $1 AND {both}", f"{table} WHERE xid = ANY($2::xid8[]) AND {both}"]
    if overlap and mine:
        branches.append(f"{table} WHERE created_at >= {overlap} AND {both}")
    elif overlap:
        # Fenced: the conditions on xid, open below, would lead the planner through the whole index on xid.
        branches.append(
            f"(SELECT * FROM {table} WHERE created_at >= {overlap} OFFSET 0) AS young WHERE {both}"
        )
    if overlap and kind == "e":
        # By its xid alone what was redriven might be taken for seen, and it was written long before.
        branches.append(
            f"(SELECT * FROM {table} WHERE redriven_at >= {overlap} OFFSET 0) AS redriven WHERE {both}"
        )
    if owed:
        branches.append(f"{table} WHERE {owed} AND xid < $1 AND xid <> ALL($2::xid8[]) AND {both}")
    # Only those of an overlap can find a row twice; to look for such takes as long as to find all.
    union = "UNION" if overlap else "UNION ALL"
    return f" {union} ".join(f"SELECT id, xid FROM {branch}" for branch in branches)


def _tail_parts(overlap: str | None) -> str:
    return " UNION ALL ".join(
        f"SELECT '{kind}' AS kind, id, xid FROM ({_unseen(kind, overlap=overlap)}) AS u" for kind in "esc"
    )


def _user_parts(overlap: str | None) -> str:
    events = _unseen(
        "e",
        mine="AND user_id = $8",
        overlap=overlap,
        owed="$9 AND NOT delivered AND settled_as IS NULL",
    )
    rows = _unseen("s", mine="AND user_id = $8 AND $10", overlap=overlap, owed="$9 AND NOT synced")
    return (
        f"SELECT 'e' AS kind, id, xid FROM ({events}) AS u"
        f" UNION ALL SELECT 's' AS kind, id, xid FROM ({rows}) AS u"
    )


def revoked_before(user_id: str) -> str:
    """When a user was last disconnected or deleted, in unix seconds; tokens of before then are void."""
    return f"""(
        SELECT max(coalesce((c.detail ->> 'revoked_before')::float8, extract(epoch FROM c.created_at)))
        FROM realtime_commands AS c
        WHERE c.user_id = {user_id} AND c.kind IN ('user_deleted', 'disconnect'))"""


def _first_page(parts: str, extra: str, *, commands: bool) -> str:
    return f"""
WITH {_HEAD}, unseen AS MATERIALIZED ({parts}
), page AS MATERIALIZED (SELECT kind, id FROM unseen ORDER BY id LIMIT $6)
{_answer(extra, known=True, limit_bytes="$7", commands=commands)}"""


def _later_ids(parts: str) -> str:
    return f"""
WITH unseen AS MATERIALIZED ({parts}),
page AS MATERIALIZED (SELECT id FROM unseen ORDER BY id LIMIT $6)
SELECT array_agg(id ORDER BY id) AS ids, $7::bigint AS unused FROM page"""


def _xids(which: str) -> str:
    """The lowest transactions of the rows found, one more than XIDS_AT_ONCE when there are others."""
    return f"""(
        SELECT coalesce(json_agg(xid::text::bigint), '[]')
        FROM (
            SELECT xid FROM unseen WHERE {which} GROUP BY xid ORDER BY xid LIMIT {XIDS_AT_ONCE + 1}
        ) AS lowest)"""


_PURGED_THROUGH = """
    'purged_through', (SELECT nullif(extract(epoch FROM purged_through), '-infinity')
                       FROM realtime_retention)"""
_USER_FACTS = f"""json_build_object(
    'erased', realtime_user_erased($8), {_PURGED_THROUGH},
    'revoked_before', {revoked_before("$8")},
    'generation', (SELECT d.generation FROM users_devices AS d WHERE d.id = $11 AND d.user_id = $8),
    'tried', EXISTS (SELECT FROM realtime_redeliveries WHERE user_id = $8)
             OR EXISTS (SELECT FROM realtime_dead_letters WHERE user_id = $8),
    'ancestors', (SELECT json_agg(system_identifier) FROM realtime_ancestors),
    'xids', {_xids("true")},
    'owed_xids', {_xids("xid < $1 AND xid <> ALL($2::xid8[])")}
)::text"""

_XIDS = f"json_build_object({_PURGED_THROUGH}, 'xids', {_xids('true')})::text"
_PURGED = f"json_build_object({_PURGED_THROUGH})::text"
_PAGE_FACTS = f"json_build_object({_PURGED_THROUGH}, 'erased', realtime_user_erased($3))::text"


def _few(columns: str, kind: str, *, in_progress: bool) -> str:
    """Rows that `seen` ($1, and $3 for what was in progress) has not; data that is too long is left out."""
    data = "r.payload::text"
    if kind != "c":
        columns = columns.replace(data, f"CASE WHEN octet_length({data}) <= {FEW_BYTES} THEN {data} END")
    rows = f"SELECT {columns} FROM {_TABLES[kind]} AS r"
    beyond = f"{rows} WHERE xid >= $1 AND {_OURS}"
    return f"{beyond} UNION ALL {rows} WHERE xid = ANY($3::xid8[]) AND {_OURS}" if in_progress else beyond


# What the tail asks for hundreds of times a second, mostly to find a row or two: without parts that are kept,
# sorted, bounded and joined again it takes half of the time. In no order, the head among the rows; one more
# than $2 where there are more.
def _tail_few(*, in_progress: bool) -> str:
    return f"""
SELECT 'h'::text AS kind, 0::bigint AS id, NULL::xid8 AS xid, pg_current_snapshot()::text AS user_id,
       {_NOTED_IDENTITY} AS label, NULL::text AS data,
       {microseconds("statement_timestamp()")} AS created_at,
       {_UNFIT}::bigint AS ref
UNION ALL {_few(_EVENT, "e", in_progress=in_progress)}
UNION ALL {_few(_SYNC, "s", in_progress=in_progress)}
UNION ALL {_few(_COMMAND, "c", in_progress=in_progress)}
LIMIT $2 + 2"""


TAIL_FEW = _tail_few(in_progress=False)
TAIL_FEW_IN_PROGRESS = _tail_few(in_progress=True)
TAIL = _first_page(_tail_parts(None), _PURGED, commands=True)
TAIL_OVERLAP = _first_page(_tail_parts("$8"), _XIDS, commands=True)
TAIL_IDS = _later_ids(_tail_parts(None))
TAIL_IDS_OVERLAP = _later_ids(_tail_parts("$8"))
USER = _first_page(_user_parts(None), _USER_FACTS, commands=False)
USER_OVERLAP = _first_page(_user_parts("$12"), _USER_FACTS, commands=False)
USER_IDS = _later_ids(_user_parts(None))
USER_IDS_OVERLAP = _later_ids(_user_parts("$11"))
_COVERED = """
    (xid < $2 AND xid <> ALL($3::xid8[]) OR id <= $6 AND xid < $4 AND xid <> ALL($5::xid8[]))"""
# A position passes over what its reader refused.
_NOT_REFUSED = """
    NOT EXISTS (SELECT FROM realtime_redeliveries AS t WHERE t.event_id = r.id
                AND t.device_id IS NOT DISTINCT FROM $8 AND t.next_attempt_at IS NOT NULL)
    AND NOT EXISTS (SELECT FROM realtime_dead_letters AS l WHERE l.event_id = r.id AND l.device_id = $8)"""
COVERED_UNDELIVERED = f"""
SELECT 'e' AS kind, id, xid, NULL, NULL, NULL, {_CREATED_AT}, {EVENT_MARKS} FROM realtime_events AS r
WHERE user_id = $1 AND NOT delivered AND settled_as IS NULL AND {_COVERED} AND {_NOT_REFUSED}
UNION ALL
SELECT 's', id, xid, NULL, NULL, NULL, {_CREATED_AT}, NULL FROM sync_queue AS r
WHERE user_id = $1 AND $7 AND device_id IS DISTINCT FROM $8 AND NOT synced AND {_COVERED} AND {_NOT_REFUSED}
LIMIT 100000"""
HORIZON = f"""
WITH {_HEAD}
SELECT 'h', 0::bigint, NULL::xid8, snapshot, identity, NULL::text, {microseconds("taken_at")},
       unfit::bigint
FROM head"""
BY_IDS = f"""
WITH {_HEAD}, page AS MATERIALIZED (SELECT id FROM unnest($1::bigint[]) AS id)
{_answer(_PAGE_FACTS, known=False, limit_bytes="$2", commands=True)}"""
