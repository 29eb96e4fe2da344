//! The built program as a process. One test program, because each one costs a link.

mod gateway;
mod lists;
mod output;
mod secrets;
mod signals;
mod terminal;
