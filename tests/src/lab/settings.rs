//! Parts of the settings of gateways in the lab; tables follow the plain keys.

/// The API address for devices and people, used by several tests over HTTP.
pub const API: &str = "api_listen = \"10.77.0.2:8080\"\napi_cleartext = true\n";
/// Keepalives that soon reveal a dead tunnel.
pub const KEEPALIVE: &str = "keepalive = 2\n";
/// Checks every few seconds, three attempts each.
pub const CHECKS: &str = "[checks]\ninterval = 3\nretry = 1\nattempts = 3\ntimeout = 2\nping_interval = 3\n";
/// Mail to the sink of the lab.
pub const MAIL: &str = "[mail]\nhost = \"10.77.9.2\"\nport = 2525\nsecurity = \"none\"\n\
                        from = \"fleetgate <gate@fleet.test>\"\nto = [\"ops@fleet.test\"]\n";

/// Returns the settings of a gateway that devices reach, with these parts.
pub fn settings(parts: &[&str]) -> String {
    format!("endpoint = \"10.77.0.2:51820\"\n{}", parts.concat())
}
