//! Tunnels: peers, sessions, routes, the access filter, and TCP/IP inside the process.

pub mod session;
