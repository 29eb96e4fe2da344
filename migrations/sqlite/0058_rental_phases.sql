-- The rentals that concern their devices now: few beside those of the past. Their devices have the service `rental`. The
-- statements in `store/rentals/phases.rs` and `store/snapshot/host_rows.rs` have the same words.
create index rentals_of_now on rentals (device) where announced_state not in ('closed', 'cancelled', 'failed');
