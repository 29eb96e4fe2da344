-- When the result that began the state was measured, if it was sent later. NULL: when the state began. A customer does not
-- see what was measured before the rental.
alter table intervals add column measured_at integer;
