-- The newest handshake under a key when it was retired, and since: a device that keeps its old configuration
-- is told from a handshake that was captured.
alter table peer_keys add column stamp blob;
create index peer_keys_retired on peer_keys (retired_at) where retired_at is not null;
