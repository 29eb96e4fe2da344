-- Events name the server of a webhook. The whole address, which may hold a token, stood in them before: it goes
-- from `http://server/path` to `http://server`.
update events set
    cause = replace(cause, data ->> '$.to',
                    substr(data ->> '$.to', 1, instr(substr(data ->> '$.to', 9), '/') + 7)),
    data = json_set(data, '$.to', substr(data ->> '$.to', 1, instr(substr(data ->> '$.to', 9), '/') + 7))
where kind in ('message.sent', 'message.failed', 'message.given_up', 'message.superseded')
    and data ->> '$.to' like 'http%://%/%';
