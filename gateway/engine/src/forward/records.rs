//! Records of flows: who reached what, how much it was, and why it ended. The queue is bounded; the
//! shell takes them.

use std::collections::VecDeque;

use super::flows::Flow;
use crate::messages::{FlowEnd, FlowRecord, GrantProtocol};
use crate::time::Now;

/// Records that wait for the shell: 2 MB. It holds a second of a scan through every permitted port.
const MOST: usize = 16_384;

/// Records of flows that go on wait for room and leave this share to ended flows.
const MOST_INTERIM: usize = MOST / 2;

#[derive(Default)]
pub struct Records {
    queue: VecDeque<FlowRecord>,
    lost: u64,
}

impl Records {
    pub fn pop(&mut self) -> Option<FlowRecord> {
        self.queue.pop_front()
    }

    /// Records that found no room.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// Records the end of a flow at the stop of the gateway. No room is needed: the queue grows by at
    /// most the number of flows, and nothing follows.
    pub fn stopped(&mut self, flow: &Flow, why: FlowEnd, now: Now) {
        self.queue.push_back(record(flow, Some(why), now));
    }

    pub fn ended(&mut self, flow: &Flow, why: FlowEnd, now: Now) {
        if self.queue.len() < MOST {
            self.queue.push_back(record(flow, Some(why), now));
        } else {
            self.lost += 1;
        }
    }

    /// Records a flow that goes on, if it is time and there is room.
    pub fn interim(&mut self, flow: &mut Flow, now: Now) {
        if now.mono.since(flow.recorded) < flow.record_every() || self.queue.len() >= MOST_INTERIM {
            return;
        }
        if flow.has_news() {
            self.queue.push_back(record(flow, None, now));
        }
        flow.recorded = now.mono;
        flow.sent = Default::default();
        flow.received = Default::default();
    }
}

fn record(flow: &Flow, ended: Option<FlowEnd>, now: Now) -> FlowRecord {
    let port = if flow.path.protocol == GrantProtocol::Icmp { 0 } else { flow.path.dst_port };
    FlowRecord {
        source: flow.path.source,
        owner: flow.owner,
        host: flow.host,
        rental: flow.target.rental(),
        protocol: flow.path.protocol,
        port,
        from: now.wall_at(flow.recorded),
        until: now.wall,
        sent: flow.sent,
        received: flow.received,
        grant: flow.permit.grant,
        ended,
    }
}
