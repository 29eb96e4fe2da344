//! HTTP at the edge: the servers of the API and the page, and the gateway's own outgoing connections.

pub mod pem;
pub mod server;
