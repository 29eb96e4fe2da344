-- The references of bookings and the names of rentals of customers who were erased before go too.
update bookings set external_ref = null
where external_ref is not null and customer in (select id from customers where erased_at is not null);
update rentals set name = 'rental-' || id
where name <> 'rental-' || id and booking in (select b.id from bookings b join customers c on c.id = b.customer where c.erased_at is not null);

-- The swaps of the last hours, which are asked for every few seconds.
create index rental_changes_at on rental_changes (at) where what = 'changed';
