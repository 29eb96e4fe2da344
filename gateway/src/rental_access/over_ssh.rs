//! Runs calls with the account, the route and the pinned host key of the checks of a device.

use std::time::Duration;

use fleetgate_engine::id::HostId;
use fleetgate_engine::messages::{
    CommandReply, ConnectFailure, HostSpec, RemoteCommand, Route, RoutePolicy, SshFailure, SshReply, SshRun,
};
use fleetgate_probes::remote;

use super::{Call, Runner};
use crate::monitor::ProbeExecutor;
use crate::store::{Store, TimingDefaults};

/// The name of a command in replies and logs.
const NAME: &str = "rental-access";
/// Longest time until the session is open. A path over LTE takes some seconds.
const OPENING: Duration = Duration::from_secs(30);

#[derive(Clone)]
pub struct OverSsh {
    pub store: Store,
    pub executor: ProbeExecutor,
    pub timing: TimingDefaults,
}

impl Runner for OverSsh {
    async fn run(&self, device: HostId, call: Call) -> Result<CommandReply, String> {
        let spec = self.store.host_spec(device, &self.timing).await.map_err(|error| format!("{error:#}"))?;
        let spec = spec.ok_or_else(|| "the device was removed".to_owned())?;
        let run = ssh_run(&spec, &call)?;
        let mut failed = Err("the device has no address on its route".to_owned());
        for route in routes(&spec) {
            let times = (OPENING, OPENING + call.timeout);
            let reply = self.executor.run_ssh(device, (route, spec.ssh.port), run.clone(), times).await;
            let is_unreached = matches!(&reply.failure, Some(SshFailure::Connect(_)));
            failed = command_reply(reply);
            if !is_unreached {
                break;
            }
        }
        failed
    }
}

/// Root is not given to a host that is not known: it needs a pinned key.
fn ssh_run(spec: &HostSpec, call: &Call) -> Result<SshRun, String> {
    let name = &spec.name;
    let user = spec.ssh.user.clone().ok_or_else(|| {
        format!("the gateway has no login on the device: fleetgate device set {name} --ssh-user USER")
    })?;
    let pin = spec.ssh.pin.clone();
    let pin = pin.ok_or_else(|| "the SSH host key of the device is not known yet".to_owned())?;
    if remote::run(&call.line, call.timeout).is_none() {
        return Err("the call is too long: renters need fewer keys, or ed25519 keys".to_owned());
    }
    let (line, timeout) = (call.line.clone(), call.timeout);
    let command = RemoteCommand { name: NAME.to_owned(), line, timeout, bounded: false };
    Ok(SshRun { pin: Some(pin), learn: false, user: Some(user), commands: vec![command] })
}

/// Returns the ways to a device, in the order in which they are tried.
fn routes(spec: &HostSpec) -> Vec<Route> {
    let inner = [spec.address, spec.other_address].into_iter().flatten();
    let tunnel = inner.filter(|_| spec.route != RoutePolicy::Direct);
    let tunnel = tunnel.filter_map(|address| spec.peer.map(|peer| Route::Tunnel { peer, address }));
    let direct = spec.direct.clone().filter(|_| spec.route != RoutePolicy::Tunnel);
    tunnel.chain(direct.map(|host| Route::Direct { host })).collect()
}

fn command_reply(reply: SshReply) -> Result<CommandReply, String> {
    match (reply.failure, reply.commands.into_iter().next()) {
        (Some(failure), _) => Err(in_words(&failure)),
        (None, Some(command)) => Ok(command),
        (None, None) => Err("the device ran no command".to_owned()),
    }
}

fn in_words(failure: &SshFailure) -> String {
    match failure {
        SshFailure::Connect(ConnectFailure::Refused) => "no SSH server answers on the device".to_owned(),
        SshFailure::Connect(failure) => format!("the device is not reached: {failure}"),
        SshFailure::NotSsh(_) => "no SSH server answers on the device, but another one".to_owned(),
        SshFailure::Protocol(why) => format!("the SSH session failed: {why}"),
        SshFailure::HostKeyChanged { seen, .. } => format!("the device has another SSH host key: {seen}"),
        SshFailure::HostKeyUnknown { .. } => "the SSH host key of the device is not known yet".to_owned(),
        SshFailure::NothingInCommon { .. } => {
            "the SSH server of the device has no algorithm of the gateway's".to_owned()
        }
        SshFailure::LoginRefused { user, .. } => format!("the device does not let {user} in"),
        SshFailure::Timeout => "the device did not answer in time".to_owned(),
    }
}
