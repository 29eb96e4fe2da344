//! HTTP at the edge: the servers of the API and the page.

pub mod server;
