-- The largest inner packet that a peer takes. NULL: 1,280 bytes, the minimum of IPv6.
alter table peers add column mtu integer check (mtu between 1280 and 1420);
