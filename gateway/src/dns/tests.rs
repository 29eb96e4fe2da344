//! Resolvers of the test, over UDP and TCP on the loopback.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use fleetgate_engine::dns::Carrier;
use tokio::net::{TcpListener, UdpSocket};

use super::resolvers::Resolvers;
use super::stream::{read_message, write_message};

/// A query for the A record of `www.example.net`, with id 7 and RD.
fn query() -> Vec<u8> {
    let mut bytes = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in ["www", "example", "net"] {
        bytes.push(label.len() as u8);
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.extend_from_slice(&[0, 0, 1, 0, 1]);
    bytes
}

/// Returns a reply with `padding` bytes behind it, which stand for its records.
fn reply_to(query: &[u8], padding: usize) -> Vec<u8> {
    let mut bytes = query.to_vec();
    bytes[2..4].copy_from_slice(&[0x81, 0x80]);
    bytes.extend(std::iter::repeat_n(0, padding));
    bytes
}

async fn udp() -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let at = socket.local_addr().unwrap();
    (socket, at)
}

/// Answers one query over UDP with what `replies` makes of it.
async fn answer_once(socket: UdpSocket, replies: impl Fn(&[u8]) -> Vec<Vec<u8>>) {
    let mut buffer = [0; 2_048];
    let (len, from) = socket.recv_from(&mut buffer).await.unwrap();
    for reply in replies(&buffer[..len]) {
        socket.send_to(&reply, from).await.unwrap();
    }
}

#[tokio::test]
async fn a_reply_comes_back_under_the_id_of_the_client_and_guesses_are_ignored() {
    let (socket, at) = udp().await;
    let server = answer_once(socket, |query| {
        let (mut other_id, mut other_name) = (reply_to(query, 0), reply_to(query, 0));
        other_id[0] ^= 1;
        other_name[13] ^= 1;
        vec![b"short".to_vec(), query.to_vec(), other_id, other_name, reply_to(query, 100)]
    });
    let (resolvers, query) = (Resolvers::new(&[at]), query());
    let (answer, ()) = tokio::join!(resolvers.ask(&query, Carrier::Udp), server);
    assert_eq!(answer.unwrap(), reply_to(&query, 100));
}

#[tokio::test]
async fn a_reply_that_is_too_large_for_the_client_sends_it_to_tcp() {
    let (socket, at) = udp().await;
    let server = answer_once(socket, |query| vec![reply_to(query, 1_400)]);
    let (resolvers, query) = (Resolvers::new(&[at]), query());
    let (answer, ()) = tokio::join!(resolvers.ask(&query, Carrier::Udp), server);
    let answer = answer.unwrap();
    assert_eq!((answer.len(), answer[2] & 0x02), (query.len(), 0x02), "truncated");

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let resolvers = Resolvers::new(&[listener.local_addr().unwrap()]);
    let server = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let asked = read_message(&mut stream, 2_000).await.unwrap().unwrap();
        write_message(&mut stream, &reply_to(&asked, 1_400)).await.unwrap();
    };
    let (answer, ()) = tokio::join!(resolvers.ask(&query, Carrier::Tcp), server);
    assert_eq!(answer.unwrap(), reply_to(&query, 1_400));
}

#[tokio::test]
async fn the_next_server_answers_for_a_silent_one_and_if_all_are_silent_the_client_learns_it() {
    let ((silent, silent_at), (socket, at)) = (udp().await, udp().await);
    let query = query();
    let resolvers = Resolvers::new(&[silent_at, at]);
    let server = answer_once(socket, |query| vec![reply_to(query, 10)]);
    let (answer, ()) = tokio::join!(resolvers.ask(&query, Carrier::Udp), server);
    assert_eq!(answer.unwrap(), reply_to(&query, 10));

    let begun = Instant::now();
    let answer = Resolvers::new(&[silent_at]).ask(&query, Carrier::Udp).await.unwrap();
    assert_eq!((answer[..2].to_vec(), answer[3] & 0x0f), (vec![0, 7], 2), "SERVFAIL");
    assert!(begun.elapsed() < Duration::from_secs(4));
    drop(silent);
}
