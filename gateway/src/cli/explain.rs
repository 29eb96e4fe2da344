//! `fleetgate explain`: may somebody reach a host, by which grant or rental, and does the host answer.

use std::net::IpAddr;
use std::process::ExitCode;

use clap::Args;

use super::client::Client;
use super::table;
use crate::api::explain::{Explanation, NewForwardProbe, ProbedExplanation};
use crate::cli::out;

#[derive(Args)]
pub(crate) struct ExplainArgs {
    /// Operator (the peer of a person), user or renter
    #[arg(long, value_name = "PEER|USER")]
    from: String,
    /// Device, host behind one, or rental (id or address; its name for its
    /// renters); with a port for TCP and UDP
    #[arg(long, value_name = "HOST[:PORT]")]
    to: String,
    /// UDP instead of TCP
    #[arg(long)]
    udp: bool,
    /// Another time than now, as RFC 3339
    #[arg(long, value_name = "TIME")]
    at: Option<String>,
    /// Also send a packet, and say whether the target answers: an echo request, or a TCP connection that is
    /// reset at once
    #[arg(long, conflicts_with_all = ["at", "udp"])]
    probe: bool,
}

impl ExplainArgs {
    /// Returns the host and the port of the target. An IPv6 address with a port has brackets.
    fn target(&self) -> anyhow::Result<(&str, Option<u16>)> {
        if self.to.parse::<IpAddr>().is_ok() {
            return Ok((&self.to, None));
        }
        let Some((host, port)) = self.to.rsplit_once(':') else { return Ok((&self.to, None)) };
        let port: u16 = port.parse().ok().filter(|port| *port > 0).ok_or_else(|| {
            anyhow::anyhow!("--to {}: a port from 1 to 65535 is expected after the colon", self.to)
        })?;
        Ok((host.trim_matches(['[', ']']), Some(port)))
    }

    fn query(&self) -> anyhow::Result<Vec<(&'static str, String)>> {
        let (host, port) = self.target()?;
        anyhow::ensure!(port.is_some() || !self.udp, "--udp needs a port: --to {host}:PORT");
        let mut query = vec![("from", self.from.clone()), ("to", host.to_owned())];
        if let Some(port) = port {
            query.push(("port", port.to_string()));
            query.push(("protocol", if self.udp { "udp" } else { "tcp" }.to_owned()));
        }
        query.extend(self.at.clone().map(|at| ("at", at)));
        Ok(query)
    }
}

/// Returns the exit code: success if it is permitted, and with a probe if the target answers as well.
pub(crate) async fn run(client: &Client, args: ExplainArgs) -> anyhow::Result<ExitCode> {
    if args.probe {
        return probe(client, &args).await;
    }
    let answer: Explanation = client.get("/explain", &args.query()?).await?;
    if client.json {
        out::line!("{}", serde_json::to_string_pretty(&answer)?);
    } else {
        let word = if answer.permitted { "permitted" } else { "denied" };
        out::line!("{word}: {}", table::safe(&answer.text));
    }
    Ok(if answer.permitted { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn probe(client: &Client, args: &ExplainArgs) -> anyhow::Result<ExitCode> {
    let (host, port) = args.target()?;
    let body = NewForwardProbe { from: args.from.clone(), to: host.to_owned(), protocol: None, port };
    let answer: ProbedExplanation = client.post("/explain/probe", &serde_json::to_value(body)?).await?;
    if client.json {
        out::line!("{}", serde_json::to_string_pretty(&answer)?);
    } else {
        let permitted = answer.explanation.permitted;
        if permitted {
            out::line!("permitted: {}", table::safe(&answer.explanation.text));
        }
        out::line!("{}: {}", answer.result.replace('_', " "), table::safe(&answer.text));
    }
    Ok(if answer.result == "answered" { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(to: &str, udp: bool) -> anyhow::Result<String> {
        let args = ExplainArgs { from: "anna".into(), to: to.into(), udp, at: None, probe: false };
        let pairs = args.query()?;
        Ok(pairs.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&"))
    }

    #[test]
    fn a_port_makes_it_a_question_about_tcp_or_udp() {
        assert_eq!(query("cam-07", false).unwrap(), "from=anna&to=cam-07");
        assert_eq!(query("cam-07:22", false).unwrap(), "from=anna&to=cam-07&port=22&protocol=tcp");
        assert_eq!(query("cam-07:53", true).unwrap(), "from=anna&to=cam-07&port=53&protocol=udp");
        assert_eq!(query("fd72::4003", false).unwrap(), "from=anna&to=fd72::4003");
        assert_eq!(query("[fd72::4003]:22", false).unwrap(), "from=anna&to=fd72::4003&port=22&protocol=tcp");
        assert!(query("cam-07", true).unwrap_err().to_string().contains("needs a port"));
        assert!(query("cam-07:0", false).unwrap_err().to_string().contains("1 to 65535"));
        assert!(query("cam-07:http", false).unwrap_err().to_string().contains("1 to 65535"));
    }
}
