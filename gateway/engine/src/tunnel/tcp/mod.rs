//! TCP/IP inside the process: one stack per peer with a connection, and the one published port.

pub(super) mod conn;
pub(super) mod published_port;
pub(super) mod stack;
