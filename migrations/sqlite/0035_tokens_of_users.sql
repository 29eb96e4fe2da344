-- A token may belong to a user. It then has the grants of the user, and at most the user's role.
alter table tokens add column user integer;     -- no reference: a removed user leaves no row
alter table tokens add column user_name text;   -- the user's name, which outlives the user
create index tokens_by_user on tokens (user) where user is not null;
