-- The profile that the device of a rental was chosen by, beside the labels in `selection`. NULL: any.
alter table rentals add column selection_profile text;
