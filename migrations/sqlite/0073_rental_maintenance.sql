-- When the device is in maintenance within a rental: JSON such as [{"from":1000,"until":2000,"comment":"new disk"}], by
-- from. NULL: never.
alter table rentals add column maintenance text;
