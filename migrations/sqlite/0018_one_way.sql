-- Its packets arrive, and the questions of its last check got no answer: packets are lost on the way from
-- the gateway to it.
alter table host_states add column one_way integer not null default 0;
