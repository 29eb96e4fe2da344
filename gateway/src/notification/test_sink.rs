//! An HTTP server for tests: small, on a real socket, and misbehaving on demand.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// How the server treats one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// Responds with this status after reading the whole request.
    Answer(u16),
    /// Responds with this status and this `Retry-After`.
    Later(u16, &'static str),
    /// Reads and never responds.
    Hang,
    /// Responds with 200 and a body without an end.
    Endless,
    /// Closes the connection at once.
    Refuse,
}

/// A request as received.
#[derive(Clone, Debug)]
pub struct Call {
    pub head: String,
    pub body: String,
}

impl Call {
    pub fn header(&self, name: &str) -> &str {
        let line = self.head.lines().find(|l| l.to_ascii_lowercase().starts_with(&format!("{name}:")));
        line.and_then(|l| l.split_once(": ")).map_or("", |(_, value)| value.trim())
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).expect("a JSON body")
    }
}

pub struct HookSink {
    pub address: SocketAddr,
    calls: Arc<Mutex<Vec<Call>>>,
}

impl HookSink {
    /// Each request takes the next manner; the last one applies to all later requests.
    pub async fn start(manners: &[Manner]) -> HookSink {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound socket");
        let calls = Arc::new(Mutex::new(Vec::new()));
        let (taken, mut manners) = (calls.clone(), VecDeque::from(manners.to_vec()));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let manner = if manners.len() > 1 { manners.pop_front() } else { manners.front().copied() };
                tokio::spawn(answer(stream, manner.expect("at least one manner"), taken.clone()));
            }
        });
        HookSink { address, calls }
    }

    pub fn url(&self) -> String {
        format!("http://{}/fleet", self.address)
    }

    /// The requests that were read, with any response.
    pub fn calls(&self) -> Vec<Call> {
        self.calls.lock().expect("no holder panics").clone()
    }

    pub async fn wait_for(&self, count: usize) -> Vec<Call> {
        for _ in 0..500 {
            let calls = self.calls();
            if calls.len() >= count {
                return calls;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        panic!("{} of {count} calls came", self.calls().len());
    }
}

async fn answer(mut stream: TcpStream, manner: Manner, calls: Arc<Mutex<Vec<Call>>>) -> Option<()> {
    if manner == Manner::Refuse {
        return None;
    }
    let mut read = Vec::new();
    let call = loop {
        let mut part = [0; 4_096];
        let n = stream.read(&mut part).await.ok().filter(|n| *n > 0)?;
        read.extend_from_slice(&part[..n]);
        if let Some(call) = whole(&String::from_utf8_lossy(&read)) {
            break call;
        }
    };
    calls.lock().expect("no holder panics").push(call);
    if manner == Manner::Endless {
        stream.write_all(b"HTTP/1.1 200 x\r\n\r\n").await.ok()?;
        loop {
            stream.write_all(&[b'x'; 4_096]).await.ok()?;
        }
    }
    let (status, header) = match manner {
        Manner::Answer(status) => (status, "location: http://127.0.0.1:1/".to_owned()),
        Manner::Later(status, when) => (status, format!("retry-after: {when}")),
        Manner::Hang | Manner::Endless | Manner::Refuse => std::future::pending().await,
    };
    let text = format!("HTTP/1.1 {status} x\r\n{header}\r\ncontent-length: 0\r\n\r\n");
    stream.write_all(text.as_bytes()).await.ok()
}

fn whole(text: &str) -> Option<Call> {
    let (head, body) = text.split_once("\r\n\r\n")?;
    let call = Call { head: head.to_owned(), body: body.to_owned() };
    let length: usize = call.header("content-length").parse().unwrap_or(0);
    (body.len() >= length).then_some(call)
}
