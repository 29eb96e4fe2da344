-- What renters sent to the devices of rentals stands beside what operators sent to hosts. The rental belongs to the
-- key, so that the traffic of a rental is exact. A key cannot be changed, so the rows move to a new table.
create table forwarded_2 (
    hour integer not null,                      -- since 1970
    source integer not null,                    -- the operator or renter, also a removed one
    host integer not null,
    protocol text not null,                     -- icmp | tcp | udp
    port integer not null,                      -- of the host; 0: icmp, or what is beyond the rows of one source in one hour
    rental integer not null default 0,          -- whose alias was used; 0: none
    user integer,                               -- of the operator; NULL: a renter sent it
    person integer,                             -- of the renter; NULL: an operator sent it
    grant_id integer not null,                  -- the grant that permitted the last packet; of a renter, the rental
    flows integer not null,                     -- that ended in this hour
    sent_packets integer not null,
    sent_bytes integer not null,
    received_packets integer not null,
    received_bytes integer not null,
    primary key (hour, source, host, protocol, port, rental),
    check ((user is null) <> (person is null))
) strict, without rowid;
insert into forwarded_2 (hour, source, host, protocol, port, user, grant_id, flows, sent_packets, sent_bytes,
                         received_packets, received_bytes)
    select hour, source, host, protocol, port, user, grant_id, flows, sent_packets, sent_bytes, received_packets,
           received_bytes
    from forwarded;
drop table forwarded;
alter table forwarded_2 rename to forwarded;
create index forwarded_host on forwarded (host, hour);
create index forwarded_source on forwarded (source, hour);
create index forwarded_rental on forwarded (rental) where rental <> 0;
