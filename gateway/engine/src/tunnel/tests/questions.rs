use std::net::SocketAddr;
use std::time::Duration;

use super::world::*;
use crate::messages::{
    Command, ConnectFailure, EchoReply, PeerSnapshot, Probe, ProbeReply, Route, SshRun, StreamId,
    StreamInput, StreamOutput,
};

const SECOND: Duration = Duration::from_secs(1);

fn failure(answer: ProbeReply) -> Option<ConnectFailure> {
    match answer {
        ProbeReply::Echo(answer) => answer.failure,
        ProbeReply::Connect(result) => result.err(),
        other => panic!("echo or connect are expected, not {other:?}"),
    }
}

#[test]
fn an_echo_takes_the_round_trip_in_both_families_and_behind_the_device() {
    let mut world = connected(1);
    for address in [v4(2), v6(2), behind()] {
        let expected = EchoReply { sent: 3, rtts: vec![RTT; 3], failure: None };
        assert_eq!(world.echo(2, address, 3), ProbeReply::Echo(expected));
    }
}

#[test]
fn a_hung_ip_stack_is_silence_with_evidence() {
    let mut world = connected(1);
    world.end(2).device.answers = false;
    let asked = world.now.mono;
    let expected = EchoReply { sent: 2, rtts: vec![], failure: None };
    assert_eq!(world.echo(2, v4(2), 2), ProbeReply::Echo(expected));
    world.run(30 * SECOND);
    let (answer, took) = world.answer(Probe::Evidence { peer: id(2) }, SECOND);
    let ProbeReply::Evidence(evidence) = answer else { panic!("evidence is expected") };
    assert!(evidence.established && evidence.last_packet > Some(asked) && took == Duration::ZERO);
}

#[test]
fn time_in_the_socket_is_no_part_of_the_round_trip() {
    let mut world = connected(1);
    world.waited = RTT / 5;
    let expected = EchoReply { sent: 2, rtts: vec![RTT - RTT / 5; 2], failure: None };
    assert_eq!(world.echo(2, v4(2), 2), ProbeReply::Echo(expected));
    world.waited = Duration::MAX;
    let expected = EchoReply { sent: 1, rtts: vec![Duration::ZERO], failure: None };
    assert_eq!(world.echo(2, v4(2), 1), ProbeReply::Echo(expected));
}

#[test]
fn a_device_that_loses_half_of_it_is_counted_right() {
    let mut world = connected(1);
    let ask = world.ask(Probe::Echo { peer: id(2), address: v4(2), count: 4 }, 5 * SECOND);
    world.run(Duration::from_millis(300));
    world.end(2).off = true;
    world.run(5 * SECOND);
    let (_, answer, _) = world.answers.iter().find(|(id, ..)| *id == ask).expect("an answer");
    assert_eq!(*answer, ProbeReply::Echo(EchoReply { sent: 4, rtts: vec![RTT; 2], failure: None }));
}

#[test]
fn without_tunnel_and_endpoint_the_answer_is_no_at_once() {
    let mut world = plain(1);
    let (answer, took) = world.answer(Probe::Echo { peer: id(2), address: v4(2), count: 1 }, SECOND);
    assert_eq!((failure(answer), took), (Some(ConnectFailure::NoTunnel), Duration::ZERO));
    let (answer, took) = world.answer(Probe::Handshake { peer: id(2) }, SECOND);
    assert_eq!((answer, took), (ProbeReply::Handshake(Err(ConnectFailure::NoTunnel)), Duration::ZERO));
}

#[test]
fn a_question_dials_a_device_whose_endpoint_is_known() {
    let mut world = plain(1);
    world.command(Command::Remove(id(2)));
    let memory = PeerSnapshot { endpoint: Some(public_address(2)), ..PeerSnapshot::default() };
    world.command(Command::Upsert(Box::new(spec(2)), memory));
    let expected = EchoReply { sent: 1, rtts: vec![RTT], failure: None };
    assert_eq!(world.echo(2, v4(2), 1), ProbeReply::Echo(expected));
    assert_eq!(world.initiations(), 1);
}

#[test]
fn an_address_of_another_peer_is_not_probed_through_this_one() {
    let mut world = connected(2);
    for address in [v4(3), "10.9.8.7".parse().expect("an address")] {
        let failure = failure(world.echo(2, address, 1));
        assert!(matches!(failure, Some(ConnectFailure::Unreachable(_))), "{failure:?}");
    }
}

#[test]
fn a_port_is_open_or_refused_or_silent_in_both_families() {
    let mut world = connected(1);
    for address in [v4(2), v6(2), behind()] {
        assert_eq!(world.connect(2, address, 22), ProbeReply::Connect(Ok(RTT)));
        assert_eq!(failure(world.connect(2, address, 23)), Some(ConnectFailure::Refused));
    }
    assert_eq!(world.tunnel.totals().connections, 0, "closed ones are let go");
    world.end(2).off = true;
    let route = Route::Tunnel { peer: id(2), address: v4(2) };
    let (answer, took) = world.answer(Probe::Connect { route, port: 22 }, 7 * SECOND);
    assert_eq!((failure(answer), took), (Some(ConnectFailure::Timeout), 7 * SECOND));
}

#[test]
fn questions_for_others_are_refused() {
    let mut world = connected(1);
    let direct = Route::Direct { host: "example.net".into() };
    let connect = Probe::Connect { route: direct, port: 22 };
    assert!(matches!(world.answer(connect, SECOND).0, ProbeReply::Refused(_)));
    let run = SshRun { pin: None, learn: false, user: None, commands: vec![] };
    let route = Route::Tunnel { peer: id(2), address: v4(2) };
    let ssh = Probe::Ssh { route, port: 22, connect: SECOND, run };
    assert!(matches!(world.answer(ssh, SECOND).0, ProbeReply::Refused(_)));
}

#[test]
fn one_peer_has_a_bounded_number_of_questions_in_flight() {
    let mut world = connected(2);
    world.end(2).device.answers = false;
    for _ in 0..100 {
        world.ask(Probe::Echo { peer: id(2), address: v4(2), count: 1 }, 5 * SECOND);
    }
    let busy = world.answers.iter().filter(
        |(_, answer, _)| matches!(answer, ProbeReply::Echo(echo) if echo.failure == Some(ConnectFailure::Busy)),
    );
    assert_eq!(busy.count(), 100 - 32);
    assert_eq!(
        world.echo(3, v4(3), 1),
        ProbeReply::Echo(EchoReply { sent: 1, rtts: vec![RTT], failure: None })
    );
    world.run(6 * SECOND);
    assert_eq!(world.answers.len(), 100, "one each");
}

fn open(n: u8, port: u16) -> StreamInput {
    StreamInput::Open { peer: id(n), to: SocketAddr::new(v4(n), port), timeout: 5 * SECOND }
}

#[test]
fn a_stream_goes_through_the_tunnel_and_back() {
    let mut world = connected(1);
    assert!(matches!(world.stream(open(2, 22))[..], [StreamOutput::Connected, StreamOutput::Writable(_)]));
    let echoed = world.stream(StreamInput::Send(b"hello".to_vec()));
    assert!(echoed.iter().any(|output| matches!(output, StreamOutput::Data(data) if data == b"hello")));
    let ended = world.stream(StreamInput::Finish);
    assert!(matches!(ended[..], [StreamOutput::Finished, StreamOutput::Closed(None)]), "{ended:?}");
    world.run(5 * SECOND);
    assert_eq!(world.tunnel.totals().connections, 0);
}

#[test]
fn a_megabyte_survives_a_stream() {
    let mut world = connected(1);
    world.stream(open(2, 22));
    let (mut room, mut sent, mut got) = (32 * 1024, 0usize, Vec::new());
    while got.len() < 1 << 20 {
        let chunk: Vec<u8> = (sent..sent + room).map(|n| (n % 251) as u8).collect();
        sent += room;
        room = 0;
        for output in world.stream(StreamInput::Send(chunk)) {
            match output {
                StreamOutput::Data(data) => got.extend(data),
                StreamOutput::Writable(more) => room += more,
                other => panic!("data or room are expected, not {other:?}"),
            }
        }
        let taken = got.len();
        world.command(Command::Stream(StreamId(1), StreamInput::Taken(taken)));
    }
    assert!(got.iter().enumerate().all(|(n, byte)| *byte == (n % 251) as u8));
}

#[test]
fn a_stream_survives_roaming() {
    let mut world = connected(1);
    world.stream(open(2, 22));
    world.end(2).at = "192.0.2.9:999".parse().expect("an address");
    let lost = world.stream(StreamInput::Send(b"anyone".to_vec()));
    assert!(lost.is_empty(), "nothing arrives where the device no longer is: {lost:?}");
    world.run(30 * SECOND);
    let echoed = std::mem::take(&mut world.streams);
    assert!(echoed.iter().any(|(_, output)| matches!(output, StreamOutput::Data(data) if data == b"anyone")));
}

#[test]
fn the_end_of_a_peer_ends_its_streams() {
    let mut world = connected(1);
    world.stream(open(2, 22));
    world.command(Command::Remove(id(2)));
    let closed = Some(ConnectFailure::NoTunnel);
    assert!(matches!(&world.streams[..], [(_, StreamOutput::Closed(reason))] if *reason == closed));
    world.streams.clear();
    assert!(matches!(world.stream(open(2, 22))[..], [StreamOutput::Closed(Some(ConnectFailure::NoTunnel))]));
}

#[test]
fn a_reset_discards_what_was_sent_before_the_end_of_the_data() {
    for (end, left) in [(StreamInput::Abort, 1), (StreamInput::Reset, 0)] {
        let mut world = connected(1);
        world.stream(open(2, 22));
        world.end(2).deaf = true;
        world.command(Command::Stream(StreamId(1), StreamInput::Send(b"late".to_vec())));
        world.command(Command::Stream(StreamId(1), StreamInput::Finish));
        let ended = world.stream(end);
        assert!(matches!(ended[..], [StreamOutput::Closed(None)]), "{ended:?}");
        assert_eq!(world.tunnel.totals().connections, left);
    }
}

#[test]
fn a_stream_can_be_given_up_before_it_stands() {
    let mut world = plain(1);
    world.command(Command::Remove(id(2)));
    let memory = PeerSnapshot { endpoint: Some(public_address(2)), ..PeerSnapshot::default() };
    world.command(Command::Upsert(Box::new(spec(2)), memory));
    world.command(Command::Stream(StreamId(1), open(2, 22)));
    let ended = world.stream(StreamInput::Abort);
    assert!(matches!(ended[..], [StreamOutput::Closed(None)]));
}
