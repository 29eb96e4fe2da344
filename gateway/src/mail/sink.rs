//! An SMTP server for tests: small, on a real socket, and misbehaving on demand.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// How the server treats one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    Take,
    /// Sends 421 instead of a greeting.
    Busy,
    /// Sends this reply to `RCPT TO`.
    RefuseRecipient(&'static str),
    /// Never sends a greeting.
    Hang,
    /// Sends no reply to `RCPT TO` of this address.
    HangFor(&'static str),
    /// Reads the mail and closes without a reply.
    DropAfterData,
    /// Reads the mail, and replies after this time.
    Slow(Duration),
}

pub struct Sink {
    pub address: SocketAddr,
    taken: Arc<Mutex<Vec<String>>>,
}

impl Sink {
    /// Each connection takes the next manner; the last one applies to all later connections.
    pub async fn start(manners: &[Manner]) -> Sink {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound socket");
        let taken = Arc::new(Mutex::new(Vec::new()));
        let (letters, mut manners) = (taken.clone(), VecDeque::from(manners.to_vec()));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let manner = if manners.len() > 1 { manners.pop_front() } else { manners.front().copied() };
                tokio::spawn(converse(stream, manner.expect("at least one manner"), letters.clone()));
            }
        });
        Sink { address, taken }
    }

    /// The mails whose last line arrived, with any reply.
    pub fn letters(&self) -> Vec<String> {
        self.taken.lock().expect("no holder panics").clone()
    }

    pub async fn wait_for(&self, count: usize) -> Vec<String> {
        for _ in 0..500 {
            let letters = self.letters();
            if letters.len() >= count {
                return letters;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        panic!("{} of {count} letters came", self.letters().len());
    }
}

async fn converse(stream: TcpStream, manner: Manner, letters: Arc<Mutex<Vec<String>>>) -> Option<()> {
    let (reader, mut out) = stream.into_split();
    let mut lines = BufReader::new(reader).lines();
    match manner {
        Manner::Busy => return out.write_all(b"421 too many connections\r\n").await.ok(),
        Manner::Hang => std::future::pending::<()>().await,
        _ => out.write_all(b"220 sink\r\n").await.ok()?,
    }
    while let Some(line) = lines.next_line().await.ok()? {
        let verb = line.split([' ', ':']).next().unwrap_or_default().to_ascii_uppercase();
        let answer = match (verb.as_str(), manner) {
            ("EHLO", _) => "250-sink\r\n250 8BITMIME",
            ("RCPT", Manner::RefuseRecipient(answer)) => answer,
            ("RCPT", Manner::HangFor(address)) if line.contains(address) => std::future::pending().await,
            ("DATA", _) => {
                out.write_all(b"354 go on\r\n").await.ok()?;
                let mut letter = String::new();
                while let Some(line) = lines.next_line().await.ok()?.filter(|l| l != ".") {
                    letter.push_str(&line);
                    letter.push('\n');
                }
                letters.lock().expect("no holder panics").push(letter);
                if manner == Manner::DropAfterData {
                    return None;
                }
                if let Manner::Slow(pause) = manner {
                    tokio::time::sleep(pause).await;
                }
                "250 taken"
            }
            ("QUIT", _) => "221 bye",
            _ => "250 fine",
        };
        out.write_all(format!("{answer}\r\n").as_bytes()).await.ok()?;
    }
    Some(())
}
