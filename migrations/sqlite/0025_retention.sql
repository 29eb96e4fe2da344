-- What refers to old rows, found by what it refers to: a row that is referred to stays.
create index notices_event on notices (event);
create index notices_held_event on notices_held (event);
create index notices_told_root on notices_told (root);
create index notices_told_last on notices_told (last);
create index outbox_notices_root on outbox_notices (root) where root <> notice;
create index acknowledgements_incident on acknowledgements (incident) where incident is not null;
