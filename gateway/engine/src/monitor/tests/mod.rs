//! Sequences over several hosts: what the monitor says of them while their links, their parents or the
//! gateway's own way out fail.

mod doubt;
mod incidents;
mod lab;
mod parents;
mod restart;
mod silence;
