-- What people sent through the gateway to hosts, by hour: a part of the audit.
create table forwarded (
    hour integer not null,                      -- since 1970
    source integer not null,                    -- the operator, also a removed one
    host integer not null,
    protocol text not null,                     -- icmp | tcp | udp
    port integer not null,                      -- of the host; 0: icmp, or what is beyond the rows of one operator in one hour
    user integer not null,
    grant_id integer not null,                  -- the grant that permitted the last packet
    flows integer not null,                     -- that ended in this hour
    sent_packets integer not null,
    sent_bytes integer not null,
    received_packets integer not null,
    received_bytes integer not null,
    primary key (hour, source, host, protocol, port)
) strict, without rowid;
create index forwarded_host on forwarded (host, hour);
create index forwarded_source on forwarded (source, hour);
