-- The thresholds that services of the device have while a rental is active, in place of their own: JSON by service, such
-- as {"disk":[{"metric":"used","warn":"80"}]}. NULL: none.
alter table rentals add column thresholds text;
