-- Graphs ask for the few events of a host that are of a time and of some kinds. With both in the index, the others of the
-- host cost no look at their rows.

drop index events_object;
create index events_object on events (object_id, seq, at, kind);
