//! The questions to the tunnel thread: what the packet filter does with a packet, what becomes of one that
//! is sent, and what a peer learns about a name.
//!
//! A question is answered within two seconds and the time limit of its probe, or it fails. `questions.rs`
//! brings each answer to its question. This file decides nothing and changes nothing.

use std::time::Duration;

use fleetgate_engine::id::PeerId;
use fleetgate_engine::messages::{
    Command, DnsClient, DnsDecision, DnsId, ExplainId, ExplainRequest, Explanation, ForwardProbe,
    ForwardProbeReply,
};

use super::Handle;
use crate::engine::questions::Questions;

impl Handle {
    /// Asks the packet filter what it does with a packet, and why.
    ///
    /// # Errors
    /// Fails when the tunnel thread does not answer.
    pub async fn explain(&self, question: ExplainRequest) -> anyhow::Result<Explanation> {
        let ask = |number| Command::Explain(ExplainId(number), question);
        self.0.explanations.ask(&self.0.tunnel, ask, Duration::ZERO).await
    }

    /// Sends a packet through the filter to its target, and waits for what becomes of it.
    ///
    /// # Errors
    /// Fails when the tunnel thread does not answer.
    pub async fn probe_forwarding(&self, probe: ForwardProbe) -> anyhow::Result<ForwardProbeReply> {
        let ask = |number| Command::ForwardProbe(ExplainId(number), probe);
        self.0.forward_probes.ask(&self.0.tunnel, ask, probe.timeout).await
    }

    /// Asks what becomes of a DNS query that a peer sent over TCP.
    ///
    /// # Errors
    /// Fails when the tunnel thread does not answer.
    pub async fn dns_query(&self, peer: PeerId, query: Vec<u8>) -> anyhow::Result<DnsDecision> {
        let ask = |number| Command::DnsQuery(DnsId(number), peer, query);
        self.0.names.ask(&self.0.tunnel, ask, Duration::ZERO).await
    }

    /// Passes the reply of a resolver to the peer that asked over UDP.
    pub async fn dns_reply(&self, client: DnsClient, reply: Vec<u8>) {
        self.tunnel(Command::DnsReply(client, reply)).await;
    }

    /// The receiver of the filter's answers.
    pub(crate) fn explanations(&self) -> &Questions<Explanation> {
        &self.0.explanations
    }

    /// The receiver of decisions about queries over TCP.
    pub(crate) fn dns_decisions(&self) -> &Questions<DnsDecision> {
        &self.0.names
    }

    /// The receiver of what became of probes of forwarding.
    pub(crate) fn forward_probes(&self) -> &Questions<ForwardProbeReply> {
        &self.0.forward_probes
    }
}
