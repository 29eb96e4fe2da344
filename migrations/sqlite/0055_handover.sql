-- The handover of rented devices. A rental from before this step begins when its window begins, as it did.
alter table rentals add column gated integer not null default 0;        -- it begins once its device is handed over
alter table rentals add column handed_over_at integer;                  -- NULL: not yet, or it is not gated

-- Why a device is not ready. NULL: it is.
alter table device_rental_settings add column not_ready_reason text;
-- How long the services of the gate must be OK. NULL: no gate.
alter table device_rental_settings add column gate_ms integer;
alter table device_rental_settings add column gate_services text;       -- JSON array of names; NULL: all
