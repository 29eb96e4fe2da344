//! The program as it runs in the field: real WireGuard clients, SSH, mail and disks, in network
//! namespaces (root).

mod disk;
mod dns;
mod faults;
mod first_start;
mod fleet;
mod forwarding;
mod front_door;
mod mail;
mod path_mtu;
mod reach;
mod rental_ssh;
mod rentals;
mod results;
mod sessions;
mod sweeps;
mod throughput;
mod uplink;
