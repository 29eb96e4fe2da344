//! Settings of gateways in the lab, in parts; tables come after what stands above them.

/// Where devices and people reach it; more than one test asks over HTTP.
pub const API: &str = "api_listen = \"10.77.0.2:8080\"\napi_cleartext = true\n";
/// Tunnels that show soon when they are gone.
pub const KEEPALIVE: &str = "keepalive = 2\n";
/// Checks that follow each other within seconds, three attempts each.
pub const CHECKS: &str = "[checks]\ninterval = 3\nretry = 1\nattempts = 3\ntimeout = 2\nping_interval = 3\n";
/// To the sink of the lab.
pub const MAIL: &str = "[mail]\nhost = \"10.77.9.2\"\nport = 2525\nsecurity = \"none\"\n\
                        from = \"fleetgate <gate@fleet.test>\"\nto = [\"ops@fleet.test\"]\n";

/// A gateway that devices reach, with these parts.
pub fn settings(parts: &[&str]) -> String {
    format!("endpoint = \"10.77.0.2:51820\"\n{}", parts.concat())
}
