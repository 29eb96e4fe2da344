//! A path with an MTU below what the tunnel needs, and the inner MTU of a peer.

use std::fs;
use std::time::Duration;

use fleetgate_tests::lab::{ACCOUNT, DEVICES, LAPTOP, Lab, Make, Reach, SshServer, eventually, run};

const PATIENCE: Duration = Duration::from_secs(20);
/// The headers of IPv4 and TCP, with timestamps.
const HEADERS: u32 = 20 + 20 + 12;

/// Returns the largest segment that the laptop sends over its connection to this address.
fn segment(lab: &Lab, address: &str) -> Option<u32> {
    let said = lab.sh(LAPTOP, &format!("ss -tinH state established dst {address}"));
    said.split_whitespace().find_map(|word| word.strip_prefix("mss:")?.parse().ok())
}

#[test]
fn large_transfers_pass_a_narrow_path_and_the_inner_mtu_of_a_peer_is_in_effect() {
    let lab = Lab::new();
    let reach = Reach::new(&lab);
    let key = lab.path("anna").display().to_string();
    run("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f", &key]);
    let public = fs::read_to_string(format!("{key}.pub")).expect("a public key");
    let _ssh = SshServer::start(&lab, DEVICES[0], Make::OpenSsh, &public);
    let device = reach.v4(0);
    let options = format!(
        "-i {key} -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o BatchMode=yes -o ConnectTimeout=5 \
         -o LogLevel=ERROR"
    );
    let connected = |mss: u32| {
        let sleep = format!("ssh {options} {ACCOUNT}@{device} 'sleep 60'");
        let mut shell = lab.spawn(LAPTOP, "shell.log", "sh", &["-c", &format!("exec {sleep}")], &[]);
        eventually("the connection is open", PATIENCE, || segment(&lab, &device).is_some());
        assert_eq!(segment(&lab, &device), Some(mss - HEADERS), "{}", lab.log("shell.log"));
        shell.kill();
        eventually("the connection is gone", PATIENCE, || segment(&lab, &device).is_none());
    };

    let file = lab.path("blob").display().to_string();
    lab.sh(LAPTOP, &format!("head -c 4000000 /dev/urandom >{file}"));
    let there = format!("/tmp/{}", lab.ns("narrow"));
    let copied = format!(
        "timeout 60 scp -q -O {options} {file} {ACCOUNT}@{device}:{there} && \
         timeout 60 scp -q -O {options} {ACCOUNT}@{device}:{there} {file}.back && cmp {file} {file}.back && \
         ssh {options} {ACCOUNT}@{device} 'rm {there}'"
    );
    let set_mtu = |ends: [(&str, &str); 2], mtu: u32| {
        ends.iter().for_each(|(name, dev)| drop(lab.sh(name, &format!("ip link set mtu {mtu} dev {dev}"))));
    };
    // Datagrams of packets that fill the tunnel have 1,340 bytes: they arrive in fragments. On its own link
    // the gateway's kernel makes them, and refuses batches.
    for ends in [[("r", "r1"), (DEVICES[0], "e1")], [("gw", "e0"), ("r", "r0")]] {
        set_mtu(ends, 1_300);
        let (done, said) = lab.try_sh(LAPTOP, &copied);
        assert!(done, "{said}");
        set_mtu(ends, 1_500);
    }

    // The interfaces have 1420, so that the gateway alone decides.
    connected(1_280);
    reach.gateway.cli(&["device", "set", "cam-1", "--mtu", "1400"]);
    connected(1_280);
    reach.gateway.cli(&["operator", "set", "anna-laptop", "--mtu", "1400"]);
    connected(1_400);
    let large = |bytes: u32| {
        let payload = bytes - 28;
        lab.try_sh(LAPTOP, &format!("ping -n -c 1 -W 2 -M do -s {payload} {device}")).0
    };
    assert!(large(1_400) && !large(1_401));
    let refused = reach.gateway.refused(&["device", "set", "cam-1", "--mtu", "1500"]);
    assert!(refused.contains("1500 is no inner MTU: a number from 1280"), "{refused}");
    let conf = reach.gateway.cli(&["device", "reissue", "cam-1", "--yes"]);
    assert!(conf.contains("\nMTU = 1400\n"), "{conf}");
}
