-- What a result of a host says beside its text, as of a service; and the limits that it is judged by.
alter table host_states add column long_output text not null default '';
alter table host_states add column metrics text not null default '[]';
alter table host_states add column warnings text not null default '[]';

alter table hosts add column thresholds text not null default '[]';
