-- Each kind of an event is `object.what_happened`.

drop index events_audit;
drop index events_audit_kind;
-- Most events are changes of a state. One pass over the table writes them in place, at some 10 s per million. Led by the
-- index of kinds, it would first collect the numbers of all rows in memory; `or fail` keeps no copy of each page for an
-- undo of this statement alone, which would be in memory too.
update or fail events
   set kind = case kind
                  when 'state' then 'state.changed'
                  when 'user.password' then 'user.password_changed'
                  when 'user.login_link' then 'user.login_link_created'
                  when 'person.login_link' then 'person.login_link_created'
                  when 'device.rental_settings' then 'device.rental_settings_changed'
                  else 'gateway.endpoint_changed'
              end
   where +kind in ('state', 'user.password', 'user.login_link', 'person.login_link', 'device.rental_settings',
                   'gateway.endpoint');
create index events_audit on events (seq) where principal != 'system' and kind != 'state.changed';
create index events_audit_kind on events (kind, seq) where principal != 'system' and kind != 'state.changed';
