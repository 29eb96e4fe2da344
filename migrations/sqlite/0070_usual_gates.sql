-- From now on a device without a word about it has a gate. Those that were set up before keep none.
update device_rental_settings
   set inherited = (select json_group_array(value) from json_each(inherited) where value <> 'gate')
   where gate_ms is null;
