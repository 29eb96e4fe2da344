//! An example of each request body, as the document shows it. A test sends every one of them.

use serde_json::{Value, json};

/// The example of an operation by its id; `None`: its body is no JSON, or it has none.
pub fn of(operation: &str) -> Option<Value> {
    access(operation)
        .or_else(|| devices(operation))
        .or_else(|| hosts(operation))
        .or_else(|| profiles(operation))
        .or_else(|| notifications(operation))
        .or_else(|| acknowledgement_or_downtime(operation))
        .or_else(|| rentals(operation))
}

const PUBLIC_KEY: &str = "HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw=";
const HOST_KEY: &str = "SHA256:uNiVztksCsDhcc0u9e8BrrQXVUpJ5YRgKhq1dZIxkUk";
const SSH_KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti ada@laptop";
const ANOTHER_PUBLIC_KEY: &str = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";

/// The time of a restore, as the example of its confirmation has it.
pub const RESTORED_AT: &str = "2026-11-30T08:15:00Z";

fn access(operation: &str) -> Option<Value> {
    Some(match operation {
        "log_in" => json!({ "name": "ada", "password": "correct horse battery" }),
        "change_own_password" => {
            json!({ "current": "correct horse battery", "new": "staple correct horse" })
        }
        "create_user" => json!({ "name": "bob", "role": "operator", "password": "a long enough password" }),
        "change_user" => json!({ "role": "viewer" }),
        "create_token" => json!({
            "name": "booking", "role": "operator", "user": "eve", "scopes": ["devices", "monitoring"],
            "expires_in_s": 7_776_000,
        }),
        "create_operator" => json!({ "name": "eve-laptop", "user": "eve", "public_key": PUBLIC_KEY }),
        "change_operator" => json!({ "name": "eve-notebook" }),
        "reissue_operator_credentials" => json!({ "public_key": ANOTHER_PUBLIC_KEY }),
        "create_grant" => json!({
            "source": { "user": "eve" }, "target": { "host": "cam-1" },
            "access": [{ "protocol": "icmp" }, { "protocol": "tcp", "ports": [22, 443, "8000-8100"] }],
            "reason": "the disk of cam-1",
        }),
        "change_grant" => json!({
            "access": [{ "protocol": "tcp", "ports": [22] }], "until": null, "reason": "it takes longer",
        }),
        "probe_forwarding" => json!({ "from": "eve", "to": "cam-1", "protocol": "tcp", "port": 22 }),
        "create_backup" => json!({ "history": true, "keep": 14 }),
        "confirm_restore" => json!({ "restored_at": RESTORED_AT }),
        "set_endpoint" => json!({ "endpoint": "vpn.example.net:51820" }),
        _ => return None,
    })
}

fn devices(operation: &str) -> Option<Value> {
    Some(match operation {
        "create_device" => json!({
            "name": "cam-2", "labels": { "site": "hill", "kind": "camera" }, "profile": "timelapse-camera",
            "route": "auto", "direct_address": "192.0.2.7", "ssh": { "port": 22, "user": "fleet" },
            "networks": ["192.168.2.0/24"], "mtu": 1_400, "notes": "on the mast",
        }),
        "change_device" => json!({
            "labels": { "site": "valley", "kind": null }, "ssh": { "user": "fleet" }, "notes": "moved in March",
        }),
        "reissue_credentials" => json!({ "public_key": PUBLIC_KEY }),
        "create_replacement" => json!({ "expires_in_s": 604_800, "needs_approval": true }),
        "trust_device" => json!({ "host_key": HOST_KEY }),
        "enrol" => json!({
            "token": ENROLMENT_TOKEN, "name": "cam-3", "public_key": ANOTHER_PUBLIC_KEY,
            "poll_hash": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        }),
        "create_enrolment_token" => json!({
            "label": "order of March", "labels": { "site": "hill" }, "profile": "timelapse-camera",
            "ssh_user": "fleet", "needs_approval": true, "uses": 20, "expires_in_s": 2_592_000,
        }),
        "approve_enrolment" => json!({ "name": "cam-4", "labels": { "site": "hill" } }),
        "reject_enrolment" => json!({ "reason": "this device is not in the order" }),
        _ => return None,
    })
}

/// A one-time login of no gateway: it only has the form of one.
pub const LOGIN_LINK: &str = "fgl_38h601nahgbz6_80m15y9wkx3ntjxnk7q4k1bt23w5vjfqr2e8v3ckvg23gxn6yk50bhbngr";

/// A token of no gateway: it only has the form of one.
pub const ENROLMENT_TOKEN: &str =
    "fge_0000000000007_297pk3167vk9x25echnb7x0a64kqpwmqw4dmmg2zc4sp0fctcs8gwb9bxk";

fn hosts(operation: &str) -> Option<Value> {
    let limits = json!([{ "metric": "rta", "warn": "500", "crit": "1500" }]);
    Some(match operation {
        "create_host" => json!({
            "name": "nas-1", "via": "cam-1", "address": "192.168.1.5", "labels": { "kind": "nas" },
            "ssh": { "port": 22, "user": "fleet" }, "interval_s": 300, "retry_s": 60, "timeout_s": 10,
            "max_check_attempts": 3, "notes": "under the stairs",
        }),
        "change_host" => json!({
            "labels": { "floor": "2", "kind": null }, "interval_s": 300, "retry_s": 60, "timeout_s": 10,
            "max_check_attempts": 3, "max_silence_s": 3_600, "freshness_s": 86_400,
            "budget_bytes_per_day": 20_000_000, "parents": [],
            "flapping": { "low": 20, "high": 30 }, "notify": { "interval_s": 14_400, "delay_s": 300 },
        }),
        "put_override" => json!({
            "check": { "type": "ping", "count": 5 }, "interval_s": 900, "retry_s": 60, "timeout_s": 10,
            "max_check_attempts": 3, "thresholds": limits, "freshness_s": 3_600,
            "flapping": { "low": 20, "high": 30 },
            "notify": { "interval_s": 14_400, "delay_s": 300, "states": ["critical"], "types": ["problem", "recovery"] },
        }),
        "trust_host" => json!({ "host_key": HOST_KEY }),
        "submit_host_result" => json!({ "exit_status": 0, "output": "all is well|load=0.4" }),
        "submit_service_result" => json!({
            "exit_status": 2, "output": "no copy since Monday|age=259200s", "timestamp": "2026-03-10T13:03:22Z",
        }),
        "submit_results" => json!({ "results": [
            { "host": "cam-1", "service": "backup", "exit_status": 0, "output": "42 files copied|files=42" },
            { "host": "cam-1", "exit_status": 0, "output": "all is well", "timestamp": 1_773_147_802 },
        ] }),
        _ => return None,
    })
}

fn profiles(operation: &str) -> Option<Value> {
    Some(match operation {
        "put_profile" => json!({
            "summary": "cameras behind LTE", "extends": ["timelapse-camera"],
            "services": {
                "ping": { "interval_s": 900, "thresholds": [{ "metric": "rta", "warn": "500", "crit": "1500" }] },
                "web": { "check": { "type": "tcp", "port": 443 } },
                "pictures": { "check": {
                    "type": "sensor", "sensor": "capture", "path": "/var/lib/pictures", "grace_s": 300,
                    "schedule": { "days": ["mon", "fri"], "from": "06:30", "until": "18:00", "every_s": 900 },
                } },
                "copy": { "check": { "type": "heartbeat", "every_s": 86_400, "grace_s": 3_600 } },
                "uptime": { "disabled": true },
            },
            "rental": {
                "preparation_s": 1_800, "turnaround_s": 3_600, "delivery": "shipped",
                "gate": { "services": ["ssh", "pictures"], "ok_for_s": 300 },
                "cleaning_command": "/usr/local/bin/wipe-recordings",
            },
        }),
        "put_profile_rules" => {
            json!({ "rules": [{ "labels": { "kind": "camera" }, "profile": "timelapse-camera" }] })
        }
        _ => return None,
    })
}

fn notifications(operation: &str) -> Option<Value> {
    Some(match operation {
        "create_contact" => json!({
            "name": "night-shift", "emails": ["Night shift <night@example.com>"],
            "time_zone": "Europe/Vienna", "digest_at": "08:00", "group_wait_s": 30,
        }),
        "change_contact" => json!({ "emails": ["ops@example.com"], "digest_at": null, "group_wait_s": 10 }),
        "create_rule" => json!({
            "name": "cameras-at-night", "contact": "ops", "labels": { "kind": "camera" },
            "severity": "critical", "period": "mon-sun 20:00-06:00", "delay_s": 900,
        }),
        "change_rule" => json!({ "severity": "warning", "period": null, "delay_s": 0 }),
        _ => return None,
    })
}

fn acknowledgement_or_downtime(operation: &str) -> Option<Value> {
    let (start, end) = ("2099-03-10T20:00:00Z", "2099-03-10T22:00:00Z");
    Some(match operation {
        "acknowledge_host" | "acknowledge_service" | "acknowledge_incident" => {
            json!({ "sticky": true, "expires": "2099-03-10T20:00:00Z", "comment": "a new disk is on its way" })
        }
        "plan_host_downtime" => json!({ "start": start, "end": end, "comment": "new firmware" }),
        "plan_service_downtime" => json!({
            "start": start, "end": end, "fixed": false, "duration_s": 3_600, "comment": "new disk",
        }),
        "plan_downtime" => json!({
            "labels": { "site": "hill" }, "comment": "the site reboots on Sundays",
            "recurrence": { "every": "sun", "from": "02:00", "to": "04:00", "time_zone": "Europe/Vienna" },
        }),
        "change_downtime" => json!({ "end": "2099-03-10T23:00:00Z", "comment": "it takes longer" }),
        _ => return None,
    })
}

/// The example belongs to no gateway: it only has the form of an id.
pub const PERSON: &str = "y_38h601nahgbz6";

fn rentals(operation: &str) -> Option<Value> {
    Some(match operation {
        "create_customer" => json!({
            "external_ref": "crm-18", "name": "Ada Ltd",
            "contacts": [{ "name": "Ada", "email": "ada@example.org", "phone": "+43 1 2345" }],
        }),
        "change_customer" => {
            json!({ "name": "Ada and Sons", "contacts": [{ "email": "office@example.org" }] })
        }
        "create_person" => json!({ "customer": "crm-17", "name": "Ada", "email": "ada@example.org" }),
        "change_person" => json!({ "name": "Ada King", "email": null }),
        "create_renter" => {
            json!({
                "person": PERSON, "name": "laptop", "public_key": PUBLIC_KEY, "mtu": 1_400, "ssh_keys": [SSH_KEY],
            })
        }
        "change_renter" => json!({ "name": "notebook", "mtu": 1_400, "ssh_keys": [] }),
        "create_person_login_link" => json!({ "person": PERSON }),
        "log_in_as_person" => json!({ "token": LOGIN_LINK }),
        "create_my_renter" => json!({ "name": "phone", "public_key": PUBLIC_KEY, "ssh_keys": [SSH_KEY] }),
        "change_my_renter" => json!({ "name": "notebook", "ssh_keys": [SSH_KEY] }),
        "reissue_my_renter_credentials" => json!({ "public_key": ANOTHER_PUBLIC_KEY }),
        "reissue_renter_credentials" => json!({ "public_key": ANOTHER_PUBLIC_KEY }),
        "create_booking" => json!({
            "customer": "crm-17", "external_ref": "order-4711", "time_zone": "Europe/Vienna",
            "items": [
                { "device": "cam-1", "from": "2034-03-10T14:00:00+01:00", "until": "2034-03-12T10:00:00+01:00",
                  "name": "entrance", "access": [{ "protocol": "tcp", "ports": [22, 443] }],
                  "ssh": false, "allowance_bytes": 10_000_000_000_i64, "cut_at_allowance": true,
                  "contacts": [{ "name": "Ada", "email": "ada@example.org" }],
                  "thresholds": [{ "service": "ping", "metric": "rta", "warn": "200", "crit": "500" }],
                  "maintenance": [{ "from": "2034-03-11T02:00:00+01:00", "until": "2034-03-11T04:00:00+01:00",
                                    "comment": "new lens" }] },
                { "labels": { "kind": "camera" }, "from": "2034-03-13T14:00:00+01:00",
                  "until": "2034-03-14T10:00:00+01:00", "other_device_after_s": 600 },
            ],
            "notes": "picked up at the gate", "metadata": { "shop": "linz" },
        }),
        "change_booking" => json!({ "hold_until": null, "notes": "paid" }),
        "change_rental" => json!({
            "until": "2034-04-12T10:00:00+01:00", "ssh": false,
            "allowance_bytes": 20_000_000_000_i64, "cut_at_allowance": true,
            "contacts": [{ "email": "ada@example.org" }], "thresholds": [{ "service": "ping", "metric": "rta" }],
            "maintenance": [],
        }),
        "hand_over_rental" => json!({ "force": true, "reason": "the sensor is known to be broken" }),
        "end_rental" => json!({ "reason": "returned_early", "note": "returned at noon" }),
        "create_subscription" => json!({
            "url": "https://booking.example.com/fleet", "kinds": ["rental.active", "rental.ended"],
        }),
        "change_subscription" => json!({ "kinds": [], "paused": false }),
        "set_rental_settings" => json!({
            "rentable": true, "preparation_s": 1_800, "turnaround_s": 3_600,
            "access": [{ "protocol": "icmp" }, { "protocol": "tcp", "ports": [22, "8000-8100"] }],
            "ready": false, "not_ready_reason": "a new battery is on its way", "gate": { "services": null, "ok_for_s": 300 },
            "delivery": "mounted",
            "ssh_account": "renter", "ssh_root": false, "cleaning_command": "/usr/local/bin/wipe-recordings",
        }),
        "create_block" => json!({
            "from": "2034-05-10T14:00:00+01:00", "until": "2034-05-12T10:00:00+01:00", "reason": "a new battery",
        }),
        _ => return None,
    })
}
