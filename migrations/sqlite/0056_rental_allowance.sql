-- How many bytes the gateway forwards for a rental, and how many it has forwarded. The sum stays when the rows of old
-- traffic are removed, and reading it costs nothing.
alter table rentals add column allowance_bytes integer;                     -- NULL: no limit
alter table rentals add column cut_at_allowance integer not null default 0; -- 1: at the allowance nothing passes any more
alter table rentals add column allowance_level integer not null default 0;  -- announced of this allowance: 1: 80 %, 2: all of it
alter table rentals add column forwarded_bytes integer not null default 0;  -- in both directions, with IP headers
update rentals set forwarded_bytes = coalesce((select sum(f.sent_bytes + f.received_bytes) from forwarded f
                                               where f.rental = rentals.id and f.rental <> 0), 0);
-- Only those that have reached something new, which are few. The statement in `store/rentals/allowances.rs` has the
-- same words.
create index rentals_allowance_due on rentals (id)
    where allowance_bytes is not null and allowance_level < 2
      and forwarded_bytes * 5 >= allowance_bytes * (4 + allowance_level);
