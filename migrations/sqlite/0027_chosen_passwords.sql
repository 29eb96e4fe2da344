-- Whether a session began with a one-time login: its user may choose a password without the current one.
alter table sessions add column by_link integer not null default 0;
