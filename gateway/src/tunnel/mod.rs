//! The tunnel thread: the UDP socket, the engine's `Tunnel`, and the TCP connections that run inside tunnels.

pub mod rx_moderation;
pub mod stream;
pub mod thread;
pub mod udp;
