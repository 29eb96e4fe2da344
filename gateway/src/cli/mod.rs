//! The command line. `serve` and `demo` run a gateway. All other commands use its API and have no
//! other source of information.

mod apply;
mod backup;
mod care;
mod client;
mod contact;
mod demo;

mod device;
mod enrolment;
mod events;
mod gateway;
mod host;
mod host_change;
mod incident;
mod limits;
mod metrics;
mod out;
mod profile;
mod remote_backup;
mod removal;
mod result;
mod secret;
mod serve;
mod service;
mod settings;
mod status;
mod table;
mod token;
mod trouble;
mod user;
mod why;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};

use client::Client;

use crate::{memory, signals};

/// Terminates WireGuard tunnels of a fleet in userspace, watches every device across them, and
/// says truthfully what is wrong.
#[derive(Parser)]
#[command(version, propagate_version = true)]
struct Cli {
    #[command(flatten)]
    to: Connection,
    #[command(subcommand)]
    command: Command,
}

/// The help heading of the options common to all commands.
const EVERYWHERE: &str = "For every command";

/// Where the gateway is, for every command that talks to one.
#[derive(Args, Clone)]
pub(crate) struct Connection {
    /// Data directory [default: $STATE_DIRECTORY or ~/.local/share/fleetgate]
    #[arg(long, global = true, env = "FLEETGATE_DATA", value_name = "DIR", help_heading = EVERYWHERE)]
    data: Option<PathBuf>,
    /// A gateway elsewhere; needs a token. Without it: the one on this machine, by its socket
    #[arg(long, global = true, env = "FLEETGATE_URL", value_parser = gateway_url, help_heading = EVERYWHERE)]
    url: Option<String>,
    /// API token for --url; better in the environment than on the command line
    #[arg(long, global = true, env = "FLEETGATE_TOKEN", hide_env_values = true, help_heading = EVERYWHERE)]
    token: Option<String>,
    /// Print JSON as the API gives it
    #[arg(long, global = true, help_heading = EVERYWHERE)]
    json: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Run the gateway
    Serve(serve::ServeArgs),
    /// Back up a gateway into one file while it runs: both databases and the keys
    Backup(backup::BackupArgs),
    /// Restore a backup into an empty data directory
    Restore(backup::RestoreArgs),
    /// Run a gateway with a simulated fleet of 25 devices over real tunnels
    Demo(demo::DemoArgs),

    /// Is anything wrong? Exits 0, 1 or 2 like a monitoring plugin, 3 when it cannot tell
    Status(status::StatusArgs),
    /// Devices: identity and tunnel
    #[command(subcommand)]
    Device(device::DeviceCommand),
    /// Hosts: state, services and settings
    #[command(subcommand)]
    Host(host::HostCommand),
    /// Make the fleet what a file says: sites, devices, hosts, profiles, contacts, rules, downtimes
    Apply(apply::ApplyArgs),
    /// Services of one host: limits and other differences from its profile
    #[command(subcommand)]
    Service(service::ServiceCommand),
    /// Profiles: named sets of services, and the rules that choose among them
    #[command(subcommand)]
    Profile(profile::ProfileCommand),
    /// Check now
    #[command(subcommand)]
    Check(host::CheckCommand),
    /// Send a result of a host or service, as a plugin would have ended
    Result(result::ResultArgs),
    /// What was measured: the metrics of a host, or the course of one of them
    Metrics(metrics::MetricsArgs),
    /// Say that somebody knows of a problem: no reminders until its state changes
    Ack(care::AckArgs),
    /// Incidents: what belongs together, and one thing to acknowledge
    #[command(subcommand)]
    Incident(incident::IncidentCommand),
    /// Planned work: watched, and nobody is told
    #[command(subcommand)]
    Downtime(care::DowntimeCommand),
    /// Devices that ask to be let in, and the tokens they ask with
    #[command(subcommand)]
    Enrolment(enrolment::EnrolmentCommand),
    /// API and enrolment tokens
    #[command(subcommand)]
    Token(token::TokenCommand),
    /// Who may log in to the page
    #[command(subcommand)]
    User(user::UserCommand),
    /// The gateway's own keys and endpoint
    #[command(subcommand)]
    Gateway(gateway::GatewayCommand),
    /// Who is told
    #[command(subcommand)]
    Contact(contact::ContactCommand),
    /// Who is told of what, when, and after how long
    #[command(subcommand)]
    Rule(contact::RuleCommand),
    /// What was told (of a notification, incident, host or service), to whom, and why not
    Why(why::WhyArgs),
    /// Messages on their way
    #[command(subcommand)]
    Message(why::MessageCommand),
    /// The event log
    Events(events::EventsArgs),
    /// Print a completion script for a shell
    Completions { shell: clap_complete::Shell },
}

const LAST_WAIT: std::time::Duration = std::time::Duration::from_millis(500);

/// Parses a gateway's address, such as `https://fleet.example.com`.
fn gateway_url(text: &str) -> Result<String, String> {
    let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    match host {
        Some(host) if !host.starts_with(['/', ':']) && !host.is_empty() => Ok(text.to_owned()),
        _ => {
            Err("write it with http:// or https:// and a host, such as https://fleet.example.com".to_owned())
        }
    }
}

/// Parses the arguments, runs the command and returns the exit code: 0 done, 1 failed, 2 wrong
/// usage. `status` has the codes of a plugin.
pub fn main() -> ExitCode {
    // This comes first, because a signal in the first moments must not kill a gateway.
    signals::hold();
    memory::set_up();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return trouble::usage(&error, &mut <Cli as CommandFactory>::command()),
    };
    if !matches!(cli.command, Command::Serve(_) | Command::Demo(_)) {
        signals::release();
    }
    rustls::crypto::ring::default_provider().install_default().expect("nobody installed one before");
    let (json, is_status) = (cli.to.json, matches!(cli.command, Command::Status(_)));
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return trouble::failed(&error.into(), json, is_status),
    };
    let ended = runtime.block_on(run(cli));
    let code = ended.unwrap_or_else(|error| trouble::failed(&error, json, is_status));
    // A DNS lookup may hang in a thread of its own. Its result is no longer needed.
    runtime.shutdown_timeout(LAST_WAIT);
    code
}

async fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let client = || Client::new(&cli.to);
    match cli.command {
        Command::Serve(args) => serve::run(&cli.to, args).await?,
        Command::Demo(args) => demo::run(&cli.to, args).await?,
        Command::Backup(args) => backup::back_up(&cli.to, args).await?,
        Command::Restore(args) => backup::restore(&cli.to, args).await?,

        Command::Status(args) => return status::run(&client()?, args).await,
        Command::Device(command) => device::run(&client()?, command).await?,
        Command::Host(command) => host::run(&client()?, command).await?,
        Command::Apply(args) => apply::run(client()?, args).await?,
        Command::Service(command) => service::run(&client()?, command).await?,
        Command::Profile(command) => profile::run(&client()?, command).await?,
        Command::Check(command) => host::check(&client()?, command).await?,
        Command::Result(args) => result::run(&client()?, args).await?,
        Command::Metrics(args) => metrics::run(&client()?, args).await?,
        Command::Ack(args) => care::acknowledge(&client()?, args).await?,
        Command::Incident(command) => incident::run(&client()?, command).await?,
        Command::Downtime(command) => care::downtime(&client()?, command).await?,
        Command::Enrolment(command) => enrolment::run(&client()?, command).await?,
        Command::Token(command) => token::run(&client()?, command).await?,
        Command::User(command) => user::run(&client()?, command).await?,
        Command::Gateway(command) => gateway::run(&client()?, command).await?,
        Command::Contact(command) => contact::run(&client()?, command).await?,
        Command::Rule(command) => contact::rule(&client()?, command).await?,
        Command::Why(args) => why::run(&client()?, args).await?,
        Command::Message(command) => why::message(&client()?, command).await?,
        Command::Events(args) => events::run(&client()?, args).await?,
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut <Cli as CommandFactory>::command(), "fleetgate", &mut script);
            out::text!("{}", String::from_utf8_lossy(&script));
        }
    }
    Ok(ExitCode::SUCCESS)
}
