-- What the host's address on the Internet said in its last check:
-- not_asked | answered | doubtful | silent.
alter table host_states add column direct text not null default 'not_asked';
