-- A host behind a device has an address of the pool, its alias, because sites may have the same
-- networks. Such an address belongs to the host and to no peer.
alter table addresses add column host integer references hosts (id);
create index addresses_host on addresses (host) where host is not null;
