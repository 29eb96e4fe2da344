//! The command line. `serve` and `demo` run a gateway. All other commands use its API and have no
//! other source of information.

mod ack;
mod advice;
mod apply;
mod backup;
mod booking;
mod client;
mod conf;
mod contact;
mod customer;
mod demo;
mod demo_past;
mod demo_rentals;
mod device;
mod downtime;
mod enrolment;
mod events;
mod explain;
mod forwarded;
mod gateway;
mod grant;
mod graph;
mod host;
mod host_args;
mod host_change;
mod import;
mod incident;
mod limits;
mod listing;
mod metrics;
mod operator;
mod options;
mod out;
mod person;
mod profile;
mod reach;
mod remote_backup;
mod removal;
mod rental;
mod rental_contacts;
mod rental_device;
mod rental_events;
mod rental_limits;
mod rental_maintenance;
mod rental_report;
mod rental_ssh;
mod renter;
mod report;
mod restore_review;
mod result;
mod secret;
mod serve;
mod service;
mod settings;
mod size;
mod ssh_keys;
mod status;
mod subscription;
mod table;
mod terminal;
#[cfg(test)]
mod tests;
mod token;
mod trouble;
mod user;
mod why;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use client::{Client, Refused};
use options::Given;

use crate::health::memory;
use crate::signals;

/// Terminates the WireGuard tunnels of a fleet, monitors every device through them, and reports what
/// is wrong.
#[derive(Parser)]
#[command(version, propagate_version = true, max_term_width = HELP_WIDTH)]
struct Cli {
    #[command(flatten)]
    to: Connection,
    #[command(subcommand)]
    command: Command,
}

/// Help is no wider, also on a wide terminal: longer lines are harder to read.
const HELP_WIDTH: usize = 80;

/// The heading of what every command takes, apart from what one command takes.
const EVERYWHERE: &str = "Global options";

/// The place of the gateway, for every command that talks to one.
#[derive(Args, Clone)]
pub(crate) struct Connection {
    /// Data directory [default: $STATE_DIRECTORY or ~/.local/share/fleetgate]
    #[arg(long, global = true, env = "FLEETGATE_DATA", hide_env_values = true, value_name = "DIR", help_heading = EVERYWHERE)]
    data: Option<PathBuf>,
    /// Address of a gateway on another machine; needs --token [default: the gateway on this machine]
    #[arg(long, global = true, env = "FLEETGATE_URL", hide_env_values = true, value_parser = gateway_url, help_heading = EVERYWHERE)]
    url: Option<String>,
    /// API token for --url; other users can read it on a command line, but not in the environment
    #[arg(long, global = true, env = "FLEETGATE_TOKEN", hide_env_values = true, help_heading = EVERYWHERE)]
    token: Option<String>,
    /// Print JSON, in the form of the API
    #[arg(long, global = true, help_heading = EVERYWHERE)]
    json: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Run the gateway
    Serve(serve::ServeArgs),
    /// Back up the databases and keys of a gateway into one file, while it runs
    Backup(backup::BackupArgs),
    /// Restore a backup into an empty data directory
    Restore(backup::RestoreArgs),
    /// Run a gateway with a simulated fleet of 25 devices
    Demo(demo::DemoArgs),

    /// Show counts and problems; exits like a monitoring plugin: 0 OK, 1 warning, 2 critical, 3 unknown
    Status(status::StatusArgs),
    /// Manage devices: keys, addresses and tunnels
    #[command(subcommand)]
    Device(device::DeviceCommand),
    /// Manage hosts: state, settings and traffic
    #[command(subcommand)]
    Host(host::HostCommand),
    /// Make the gateway match a fleet file
    Apply(apply::ApplyArgs),
    /// Manage services of one host: limits and other differences from its profile
    #[command(subcommand)]
    Service(service::ServiceCommand),
    /// Manage profiles: sets of services, and rules that assign them to hosts
    #[command(subcommand)]
    Profile(profile::ProfileCommand),
    /// Run checks now
    #[command(subcommand)]
    Check(host::CheckCommand),
    /// Send a check result of a host or service
    Result(result::ResultArgs),
    /// Show the metrics of a host, or the history of one metric
    Metrics(metrics::MetricsArgs),
    /// Draw one metric over time
    Graph(graph::GraphArgs),
    /// Report the availability of hosts and services
    #[command(subcommand)]
    Report(report::ReportCommand),
    /// Acknowledge a problem
    Ack(ack::AckArgs),
    /// Show and acknowledge incidents (problems with one cause)
    #[command(subcommand)]
    Incident(incident::IncidentCommand),
    /// Manage downtimes (checks continue, notifications are suppressed)
    #[command(subcommand)]
    Downtime(downtime::DowntimeCommand),
    /// Approve or reject devices that wait for approval
    #[command(subcommand)]
    Enrolment(enrolment::EnrolmentCommand),
    /// Manage API tokens and enrolment tokens
    #[command(subcommand)]
    Token(token::TokenCommand),
    /// Manage the users of the web page
    #[command(subcommand)]
    User(user::UserCommand),
    /// Manage operators (peers of people, such as laptops and phones)
    #[command(subcommand)]
    Operator(operator::OperatorCommand),
    /// Manage grants (who may reach which hosts through the gateway, and when)
    #[command(subcommand)]
    Grant(grant::GrantCommand),
    /// Manage customers, who rent devices, and their people
    #[command(subcommand)]
    Customer(customer::CustomerCommand),
    /// Manage renters (peers of the people of customers, such as laptops and phones)
    #[command(subcommand)]
    Renter(renter::RenterCommand),
    /// Book devices for customers
    #[command(subcommand)]
    Booking(booking::BookingCommand),
    /// Manage rentals: devices in windows of time, and which devices are rented
    #[command(subcommand)]
    Rental(rental::RentalCommand),
    /// Manage subscriptions (programs that receive the events of rentals)
    #[command(subcommand)]
    Subscription(subscription::SubscriptionCommand),
    /// Explain who may reach what: which grant decides, or what is missing
    Explain(explain::ExplainArgs),
    /// Connect stdin and stdout with a TCP port of a host
    Connect(reach::ConnectArgs),
    /// Make TCP ports of hosts available on this machine
    Forward(reach::ForwardArgs),
    /// Log in to a host with ssh and your own key
    Ssh(reach::SshArgs),
    /// Print the SSH host key of a host if it is the pinned one, for
    /// KnownHostsCommand of ssh
    KnownHost(reach::KnownHostArgs),
    /// Show what people sent through the gateway to hosts, by hour
    Forwarded(forwarded::ForwardedArgs),
    /// Show the gateway's keys, or set its endpoint
    #[command(subcommand)]
    Gateway(gateway::GatewayCommand),
    /// Show and confirm what a restore brought back
    #[command(subcommand)]
    RestoreReview(restore_review::RestoreReviewCommand),
    /// Manage contacts (receivers of notifications)
    #[command(subcommand)]
    Contact(contact::ContactCommand),
    /// Manage notification rules (who receives what, when, and after which delay)
    #[command(subcommand)]
    Rule(contact::RuleCommand),
    /// Explain notifications: who received them, and why others did not
    Why(why::WhyArgs),
    /// Show messages of the outbox, and resend failed ones
    #[command(subcommand)]
    Message(why::MessageCommand),
    /// Show the event log
    Events(events::EventsArgs),
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
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
    let (cli, given) = match parsed() {
        Ok(parsed) => parsed,
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
    let code =
        ended.unwrap_or_else(|error| trouble::failed(&Refused::in_options(error, given), json, is_status));
    // A DNS lookup may hang in a thread of its own. Its result is no longer needed.
    runtime.shutdown_timeout(LAST_WAIT);
    code
}

/// Returns the command line, and what of it an error may name.
fn parsed() -> Result<(Cli, Given), clap::Error> {
    let matches = Cli::command().try_get_matches()?;
    let cli = Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut Cli::command()))?;
    Ok((cli, Given::of(&matches)))
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
        Command::Graph(args) => graph::run(&client()?, args).await?,
        Command::Report(command) => report::run(&client()?, command).await?,
        Command::Ack(args) => ack::run(&client()?, args).await?,
        Command::Incident(command) => incident::run(&client()?, command).await?,
        Command::Downtime(command) => downtime::run(&client()?, command).await?,
        Command::Enrolment(command) => enrolment::run(&client()?, command).await?,
        Command::Token(command) => token::run(&client()?, command).await?,
        Command::User(command) => user::run(&client()?, command).await?,
        Command::Operator(command) => operator::run(&client()?, command).await?,
        Command::Grant(command) => grant::run(&client()?, command).await?,
        Command::Customer(command) => customer::run(&client()?, command).await?,
        Command::Renter(command) => renter::run(&client()?, command).await?,
        Command::Booking(command) => booking::run(&client()?, command).await?,
        Command::Rental(command) => rental::run(&client()?, command).await?,
        Command::Subscription(command) => subscription::run(&client()?, command).await?,
        Command::Forwarded(args) => forwarded::run(&client()?, args).await?,
        Command::Explain(args) => return explain::run(&client()?, args).await,
        Command::Connect(args) => reach::connect(&cli.to, args).await?,
        Command::Forward(args) => reach::forward(&cli.to, args).await?,
        Command::Ssh(args) => reach::ssh(&cli.to, args).await?,
        Command::KnownHost(args) => reach::known_host(&cli.to, args).await?,
        Command::Gateway(command) => gateway::run(&client()?, command).await?,
        Command::RestoreReview(command) => restore_review::run(&client()?, command).await?,
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
